"""The overlap of boxes as a cost."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from detcore.boxes import EPS, aligned_intersection, area, pairwise_overlap
from detcore.structures import ImageBatch, Predictions, Targets
from detcore_assigners.costs.match_cost import MatchCost


class IoUCost(MatchCost):
    """Minus the overlap of the boxes.

    Rezatofighi et al., "Generalized Intersection over Union" (arXiv:1902.09630); Carion et al., "End-to-End
    Object Detection with Transformers" (arXiv:2005.12872).

    Args:
        iou_mode: "giou" is the IoU, less the part of the smallest box around both that neither covers; "iof"
            divides the intersection by the predicted box.
        weight: Factor.
    """

    needs = frozenset({"boxes"})

    def __init__(
        self,
        *,
        iou_mode: Literal["giou", "iou", "iof"] = "giou",
        weight: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        self.iou_mode = iou_mode
        self.weight = weight

    def cost(
        self, predictions: Predictions, targets: Targets, batch: ImageBatch | None = None
    ) -> Float[Tensor, "B N M"]:
        """See :class:`~detcore_assigners.costs.match_cost.MatchCost`; reads boxes."""
        boxes, gts = predictions.boxes.float(), targets.boxes.float()
        if self.iou_mode == "giou":
            return _giou(boxes[:, :, None], gts[:, None]) * -self.weight
        return pairwise_overlap(boxes, gts, self.iou_mode) * -self.weight


def _giou(a: Float[Tensor, "*S 4"], b: Float[Tensor, "*S 4"]) -> Float[Tensor, "*S"]:
    intersection = aligned_intersection(a, b)
    union = (area(a) + area(b) - intersection).clamp(min=EPS)
    width = torch.maximum(a[..., 2], b[..., 2]) - torch.minimum(a[..., 0], b[..., 0])
    height = torch.maximum(a[..., 3], b[..., 3]) - torch.minimum(a[..., 1], b[..., 1])
    around = (width.clamp(min=0) * height.clamp(min=0)).clamp(min=EPS)
    return intersection / union - (around - union) / around
