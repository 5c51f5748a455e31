"""One-to-one assignment of the lowest total cost."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Int
from pydantic import Field
from torch import Tensor

from detcore.component import Part, make
from detcore.interfaces import Assigner
from detcore.structures import Assignment, ImageBatch, Predictions, Priors, Targets
from detcore_assigners.costs.match_cost import MatchCost
from detcore_assigners.dynamic_k import assignment_of
from detcore_assigners.matching import cheapest_matching
from detcore_assigners.pieces import pieces
from detcore_assigners.predicted import required
from detcore_assigners.regions import ignored_priors


class HungarianAssigner(Assigner):
    """Each ground truth gets one prediction, each prediction at most one ground truth, at the lowest total cost.

    The cost of a pair is the sum of ``match_costs``; the matching is that of scipy's
    ``linear_sum_assignment``, image by image on the CPU (the only loop over images; it is no method for
    compiled graphs). Where there are more ground truths than predictions, some go without. Of several
    matchings of the same total it is the one that the solver finds, which may depend on the order.

    A pair whose cost is not finite (NaN, infinite) is never matched: of the matchings with the most other
    pairs it is the cheapest one, so that a diverging prediction neither stops the training nor takes a ground
    truth. Predictions that are not ``priors.valid`` are never matched and get state -1; so do unmatched ones
    whose decoded box lies in a region to ignore. All other unmatched ones are negative. ``quality`` is the IoU
    of a positive's decoded box, else 0.

    Memory: costs of one image at least, [N, M] float32 each, for as many images at a time as fit into
    ``overlaps.CHUNK`` pairs, with M the most ground truths among these.

    Carion et al., "End-to-End Object Detection with Transformers" (arXiv:2005.12872).

    Args:
        match_costs: What pairs cost.
        ignore_iof_thr: Unmatched predictions with more than this part of their decoded box inside a region to
            ignore take no part. None or -1: regions have no effect, as in the reference; what they hold is
            background.

    Raises:
        ConfigError: There are no costs.
    """

    def __init__(
        self,
        *,
        match_costs: tuple[Part[MatchCost], ...],
        ignore_iof_thr: Annotated[float, Field(gt=0, le=1)] | Literal[-1] | None = 0.5,
    ) -> None:
        if not match_costs:
            raise ValueError("match_costs should name at least one cost, got none; add for example IoUCost")
        self.match_costs = tuple(make(cost) for cost in match_costs)
        self.ignore_iof_thr = None if ignore_iof_thr == -1 else ignore_iof_thr
        self.needs = frozenset({"boxes"}).union(*(cost.needs for cost in self.match_costs))

    @torch.no_grad()
    def assign(
        self,
        priors: Priors,
        targets: Targets,
        predictions: Predictions | None = None,
        batch: ImageBatch | None = None,
    ) -> Assignment:
        """See :meth:`detcore.interfaces.Assigner.assign`; reads what the costs read, and decoded boxes.

        Raises:
            ValueError: There are no predictions, or another number than priors; or a cost misses something.
        """
        predictions = required(predictions, "HungarianAssigner")
        images, count = predictions.boxes.shape[:2]
        if len(priors) != count:
            raise ValueError(
                f"HungarianAssigner matches predictions: priors should be one for each of the {count} "
                f"predictions, got {len(priors)}"
            )
        valid = torch.ones((images, count), dtype=torch.bool, device=predictions.boxes.device)
        if priors.valid is not None:
            valid = valid & priors.valid
        gt_index = self._matched(predictions, targets, batch, valid)
        found = gt_index >= 0
        ignored = ignored_priors(priors.replace(boxes=predictions.boxes), targets, self.ignore_iof_thr)
        return assignment_of(gt_index.clamp(min=0), found, found | valid & ~ignored, predictions, targets)

    def _matched(
        self, predictions: Predictions, targets: Targets, batch: ImageBatch | None, valid: Bool[Tensor, "B N"]
    ) -> Int[Tensor, "B N"]:
        """The ground truth of each prediction, or -1."""
        gt_index = torch.full(valid.shape, -1, dtype=torch.int64)
        columns, rows = valid.cpu(), targets.matchable.cpu()
        for piece in pieces(predictions, targets, batch, rows):
            costs = [part.cost(piece.predictions, piece.targets, piece.batch) for part in self.match_costs]
            total = torch.stack([cost.float() for cost in costs]).sum(dim=0)
            for image, cost in enumerate(total.cpu().double(), start=piece.start):
                prediction, gt = columns[image].nonzero()[:, 0], rows[image].nonzero()[:, 0]
                row, column = cheapest_matching(cost[prediction][:, gt].numpy())
                gt_index[image, prediction[row]] = gt[column]
        return gt_index.to(valid.device)
