"""Task-aligned assignment."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from detcore.interfaces import Assigner
from detcore.structures import (
    IGNORED,
    NEGATIVE,
    POSITIVE,
    Assignment,
    ImageBatch,
    Predictions,
    Priors,
    Targets,
)
from detcore_assigners.blocks import blocks
from detcore_assigners.choice import resolve, smallest
from detcore_assigners.dynamic_k import PredictedOverlaps, columns
from detcore_assigners.predicted import class_scores, required
from detcore_assigners.regions import ignored_centers
from detcore_assigners.surroundings import centers_inside


class TaskAlignedAssigner(Assigner):
    """A ground truth takes the priors that both classify and localise it best.

    For each ground truth, with the metric t = score^``alpha`` * IoU^``beta`` of a prediction, where score is
    that of the ground truth's class and IoU that of the decoded box:

    1. its candidates are the ``topk`` priors of the highest t over all levels (of equal ones the first);
    2. those with t > 0 and their centre inside the ground truth are positive.

    A prior that is positive for several ground truths goes to the one of highest IoU (of equal ones the
    first). All other priors are negative, but for those outside of the image (``priors.valid``) and in regions
    to ignore, which take no part: state -1. Scores are ``predictions.scores`` where the head gives them, else
    the sigmoid of the logits; predictions that are not finite have t = 0.

    Feng et al., "TOOD: Task-aligned One-stage Object Detection" (arXiv:2108.07755).

    Args:
        topk: Candidates of each ground truth.
        alpha: Power of the score.
        beta: Power of the IoU.
        quality: What ``Assignment.quality`` of positives is (0 elsewhere). "soft_label": t scaled so that, of
            the positives of a ground truth, the highest is the highest IoU of them; the class's label in the
            loss, and the weight of the box. "metric": t itself. "iou": the IoU.
        eps: Added to the highest t of a ground truth before dividing by it. The reference adds 1e-7, which
            makes soft labels vanish early in training, when t is far smaller (an IoU of 0.05 to the power of
            6 is 1.6e-8).
        ignore_regions: Whether priors with their centre in a region to ignore take no part. False: regions
            have no effect, as in the reference; what they hold is background.
    """

    needs = frozenset({"logits", "boxes"})

    def __init__(
        self,
        *,
        topk: Annotated[int, Field(ge=1)] = 13,
        alpha: Annotated[float, Field(ge=0)] = 1.0,
        beta: Annotated[float, Field(ge=0)] = 6.0,
        quality: Literal["soft_label", "metric", "iou"] = "soft_label",
        eps: Annotated[float, Field(ge=0)] = 0.0,
        ignore_regions: bool = True,
    ) -> None:
        self.topk = topk
        self.alpha = alpha
        self.beta = beta
        self.quality = quality
        self.eps = eps
        self.ignore_regions = ignore_regions

    @torch.no_grad()
    def assign(
        self,
        priors: Priors,
        targets: Targets,
        predictions: Predictions | None = None,
        batch: ImageBatch | None = None,
    ) -> Assignment:
        """See :meth:`detcore.interfaces.Assigner.assign`; reads centres, scores and decoded boxes.

        Raises:
            ValueError: There are no predictions.
        """
        predictions = required(predictions, "TaskAlignedAssigner")
        part = ~ignored_centers(priors, targets, 1.0 if self.ignore_regions else None)
        if priors.valid is not None:
            part = part & priors.valid
        candidates, overlaps, aligned = self._candidates(targets, predictions, part)
        chosen = aligned & centers_inside(priors, targets, candidates)
        gt_index, iou, found = resolve(candidates, overlaps, chosen, len(priors))
        state = torch.full_like(gt_index, NEGATIVE, dtype=torch.int8)
        state = state.masked_fill(~part, IGNORED).masked_fill(found, POSITIVE)
        return Assignment(gt_index, state, self._quality(gt_index, iou, found, targets, predictions))

    def _candidates(
        self, targets: Targets, predictions: Predictions, part: Bool[Tensor, "B N"]
    ) -> tuple[Int[Tensor, "B M k"], Float[Tensor, "B M k"], Bool[Tensor, "B M k"]]:
        """The best priors of each ground truth, their IoUs with it, and whether they are worth anything."""
        matchable, topk = targets.matchable, min(self.topk, part.shape[1])
        shape = (*matchable.shape, topk)
        candidates = torch.zeros(shape, dtype=torch.int64, device=part.device)
        overlaps = torch.zeros(shape, device=part.device)
        aligned = torch.zeros_like(candidates, dtype=torch.bool)
        all_overlaps = PredictedOverlaps(predictions.boxes, targets)
        for block in blocks(matchable, part.shape[1]):
            iou = all_overlaps(block)
            scores = class_scores(predictions, partial(columns, labels=targets.labels, block=block))
            metric = self._metric(scores, iou).masked_fill_(~part[block.images][:, None], 0.0)
            best = smallest(-metric, topk)
            candidates[block.images, block.rows] = best
            overlaps[block.images, block.rows] = iou.gather(2, best)
            aligned[block.images, block.rows] = metric.gather(2, best) > 0
        return candidates, overlaps, aligned & matchable[..., None]

    def _metric(self, scores: Float[Tensor, "*S"], iou: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return (scores**self.alpha * iou**self.beta).nan_to_num(nan=0.0, posinf=0.0)

    def _quality(
        self,
        gt_index: Int[Tensor, "B N"],
        iou: Float[Tensor, "B N"],
        found: Bool[Tensor, "B N"],
        targets: Targets,
        predictions: Predictions,
    ) -> Float[Tensor, "B N"]:
        if self.quality == "iou":
            return iou
        label = targets.labels.gather(1, gt_index)[..., None]
        scores = class_scores(predictions, lambda values: values.gather(2, label).squeeze(2))
        metric = self._metric(scores, iou).masked_fill(~found, 0.0)
        if self.quality == "metric":
            return metric
        best = torch.zeros_like(targets.boxes[..., 0], dtype=torch.float32)
        best_iou = best.scatter_reduce(1, gt_index, iou, "amax").gather(1, gt_index)
        best = best.scatter_reduce(1, gt_index, metric, "amax").gather(1, gt_index)
        scaled = metric / (best + self.eps).clamp(min=torch.finfo(best.dtype).tiny) * best_iou
        return scaled.masked_fill(~found, 0.0)
