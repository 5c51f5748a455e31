"""Dynamic soft label assignment."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
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


class DynamicSoftLabelAssigner(Assigner):
    """SimOTA with the IoU as soft label in the classes' cost, and a soft preference for the centre.

    1. Candidates are the priors whose centre lies inside a ground truth.
    2. A pair costs the quality focal loss of the class scores, summed over classes, with the IoU of predicted
       box and ground truth as label of its class, plus ``iou_weight`` times -log(IoU), plus
       10^(distance - ``soft_center_radius``), the distance to the ground truth's centre in the prior's strides.
    3. A ground truth takes the k candidates that cost least; k is the sum of its ``topk`` highest IoUs with
       candidates, its whole part, at least 1.
    4. A prior that several take goes to the ground truth to which it costs least, be it one of those or not.

    Of equal costs the first prior and the first ground truth win, on every device. Pairs whose cost is not
    finite (the power overflows from a distance of 41 strides on) cost more than all others. All other priors
    are negative, but for those outside of the image (``priors.valid``) and in regions to ignore, which take no
    part: state -1. ``quality`` is a positive's IoU, its soft label, else 0.

    Lyu et al., "RTMDet: An Empirical Study of Designing Real-Time Object Detectors" (arXiv:2212.07784).

    Args:
        soft_center_radius: Strides from the centre up to which the distance costs at most 1.
        topk: IoUs that are added up.
        iou_weight: Weight of the overlap's cost.
        ignore_regions: Whether priors with their centre in a region to ignore take no part. False: regions
            have no effect, as in the reference; what they hold is background.
        match_outside: True lets a ground truth take any candidate, also one that is only inside of others, as
            the reference does: one far outside of the image then takes a prior of another object. False: only
            candidates inside it or within ``soft_center_radius`` of its centre.
    """

    needs = frozenset({"strides", "logits", "boxes"})

    def __init__(
        self,
        *,
        soft_center_radius: Annotated[float, Field(ge=0)] = 3.0,
        topk: Annotated[int, Field(ge=1)] = 13,
        iou_weight: Annotated[float, Field(ge=0)] = 3.0,
        ignore_regions: bool = True,
        match_outside: bool = False,
    ) -> None:
        self.soft_center_radius = soft_center_radius
        self.topk = topk
        self.iou_weight = iou_weight
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
        predictions = required(predictions, "DynamicSoftLabelAssigner")
        part = ~ignored_centers(priors, targets, 1.0 if self.ignore_regions else None)
        if priors.valid is not None:
            part = part & priors.valid
        around = Surroundings(priors, targets)
        candidates = candidate_priors(around.inside, targets.matchable, part)
        overlaps, logits = PredictedOverlaps(predictions.boxes, targets), class_logits(predictions)
        background = _background(logits).sum(dim=2)

        def pairs(block: Block) -> PairTerms:
            iou, distance = overlaps(block), around.distance(block)
            allowed = here = candidates[block.images][:, None]
            if not self.match_outside:
                allowed = here & (around.inside(block) | (distance <= self.soft_center_radius))
            cost = _class_cost(columns(logits, targets.labels, block), iou, background[block.images][:, None])
            cost.sub_((iou + LOG_EPS).log_(), alpha=self.iou_weight)
            cost.add_(torch.pow(10, distance.sub_(self.soft_center_radius)))
            return PairTerms.of(cost, iou, allowed, here)

        found = dynamic_k_matching(pairs, targets.matchable, len(priors), self.topk)
        return assignment_of(*found, part, predictions, targets)


def _background(logits: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """The quality focal loss of a class of label 0."""
    return F.softplus(logits) * logits.sigmoid().square()


def _class_cost(
    logits: Float[Tensor, "b m N"], iou: Float[Tensor, "b m N"], background: Float[Tensor, "b 1 N"]
) -> Float[Tensor, "b m N"]:
    """The quality focal loss over all classes.

    Args:
        logits: Of the ground truth's class.
        iou: Label of that class.
        background: The loss were all labels 0.
    """
    own = (F.softplus(logits) - logits * iou) * (iou - logits.sigmoid()).square()
    return background - _background(logits) + own
