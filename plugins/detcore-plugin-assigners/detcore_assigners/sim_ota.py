"""Simplified optimal transport assignment."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Bool
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from detcore.interfaces import Assigner
from detcore.structures import Assignment, ImageBatch, Predictions, Priors, Targets
from detcore_assigners.blocks import Block
from detcore_assigners.dynamic_k import (
    LOG_EPS,
    PairTerms,
    PredictedOverlaps,
    assignment_of,
    candidate_priors,
    columns,
    dynamic_k_matching,
)
from detcore_assigners.predicted import class_logits, required
from detcore_assigners.regions import ignored_centers
from detcore_assigners.surroundings import Surroundings

#: Cost of a prior that is not both inside the ground truth and near its centre, beside its other costs.
FAR_COST = 1e5


class SimOTAAssigner(Assigner):
    """A ground truth takes the priors that cost least, as many as their predicted boxes' IoUs add up to.

    1. Candidates are the priors whose centre lies inside a ground truth, or less than ``center_radius`` of
       their strides from its centre in x and in y.
    2. A pair costs ``cls_weight`` times the binary cross entropy of the class scores, summed over classes,
       plus ``iou_weight`` times -log(IoU of predicted box and ground truth), plus 100,000 unless the prior is
       both inside the ground truth and near its centre: such priors are a last resort.
    3. A ground truth takes the k candidates that cost least; k is the sum of its ``candidate_topk`` highest
       IoUs with candidates, its whole part, at least 1.
    4. A prior that several take goes to the ground truth to which it costs least, be it one of those or not.

    Of equal costs the first prior and the first ground truth win, on every device. Pairs whose cost is not
    finite cost more than all others. All other priors are negative, but for those outside of the image
    (``priors.valid``) and in regions to ignore, which take no part: state -1. ``quality`` is a positive's IoU,
    else 0. Scores are ``predictions.scores`` where the head gives them (class times objectness), else the
    sigmoid of the logits.

    Ge et al., "YOLOX: Exceeding YOLO Series in 2021" (arXiv:2107.08430); Ge et al., "OTA" (arXiv:2103.14259).

    Args:
        center_radius: Strides from a ground truth's centre within which a prior is near it.
        candidate_topk: IoUs that are added up.
        iou_weight: Weight of the overlap's cost.
        cls_weight: Weight of the classes' cost.
        ignore_regions: Whether priors with their centre in a region to ignore take no part. False: regions
            have no effect, as in the reference; what they hold is background.
        match_outside: True lets a ground truth take any candidate, also one that is only near others, as the
            reference does: one far outside of the image then takes a prior of another object. False: only
            priors inside it or near its centre.
    """

    needs = frozenset({"strides", "logits", "boxes"})

    def __init__(
        self,
        *,
        center_radius: Annotated[float, Field(gt=0)] = 2.5,
        candidate_topk: Annotated[int, Field(ge=1)] = 10,
        iou_weight: Annotated[float, Field(ge=0)] = 3.0,
        cls_weight: Annotated[float, Field(ge=0)] = 1.0,
        ignore_regions: bool = True,
        match_outside: bool = False,
    ) -> None:
        self.center_radius = center_radius
        self.candidate_topk = candidate_topk
        self.iou_weight = iou_weight
        self.cls_weight = cls_weight
        self.ignore_regions = ignore_regions
        self.match_outside = match_outside

    @torch.no_grad()
    def assign(
        self,
        priors: Priors,
        targets: Targets,
        predictions: Predictions | None = None,
        batch: ImageBatch | None = None,
    ) -> Assignment:
        """See :meth:`detcore.interfaces.Assigner.assign`; reads centres, strides, scores and decoded boxes.

        Raises:
            ValueError: There are no predictions.
        """
        predictions = required(predictions, "SimOTAAssigner")
        part = ~ignored_centers(priors, targets, 1.0 if self.ignore_regions else None)
        if priors.valid is not None:
            part = part & priors.valid
        around = Surroundings(priors, targets)
        candidates = candidate_priors(lambda block: self._near(around, block), targets.matchable, part)
        overlaps, logits = PredictedOverlaps(predictions.boxes, targets), class_logits(predictions)
        background = F.softplus(logits).sum(dim=2)

        def pairs(block: Block) -> PairTerms:
            iou = overlaps(block)
            # the cross entropy of one class differs from that of none by the logit of that class
            cost = background[block.images][:, None] - columns(logits, targets.labels, block)
            cost.mul_(self.cls_weight).sub_((iou + LOG_EPS).log_(), alpha=self.iou_weight)
            inside, near = around.inside(block), around.within(block, self.center_radius)
            cost.add_(~(inside & near), alpha=FAR_COST)
            allowed = here = candidates[block.images][:, None]
            return PairTerms.of(cost, iou, allowed if self.match_outside else here & (inside | near), here)

        found = dynamic_k_matching(pairs, targets.matchable, len(priors), self.candidate_topk)
        return assignment_of(*found, part, predictions, targets)

    def _near(self, around: Surroundings, block: Block) -> Bool[Tensor, "b m N"]:
        return around.inside(block) | around.within(block, self.center_radius)
