"""The extended IoU loss."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from detcore import boxes as geometry
from detcore.interfaces.loss import BoxLoss, Reduction
from detcore_losses import boxwise


class EIoULoss(BoxLoss):
    """One minus an IoU that goes on below 0 for boxes apart, through a smooth L1.

    The intersection is written with signs, so that boxes that do not overlap have a negative one, which grows
    as they come closer.

    Source: Peng and Yu, A Systematic IoU-Related Method: Beyond Simplified Regression for Better Localization
    (IEEE TIP 2021, arXiv:2112.01793).

    Args:
        eps: Added to the union, in squared pixels.
        smooth_point: Where the parabola of the smooth L1 ends.
        reduction: How the boxes' losses are reduced; see :func:`~detcore_losses.reduce_loss`.
        loss_weight: Factor of the result.
    """

    space: ClassVar[Literal["codes", "boxes"]] = "boxes"

    def __init__(
        self,
        *,
        eps: Annotated[float, Field(gt=0)] = 1e-6,
        smooth_point: Annotated[float, Field(gt=0)] = 0.1,
        reduction: Reduction = "mean",
        loss_weight: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.smooth_point = smooth_point
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(
        self,
        pred: Float[Tensor, "*S 4"],
        target: Float[Tensor, "*S 4"],
        *,
        weight: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
        reduction: Reduction | None = None,
    ) -> Tensor:
        """See :class:`~detcore.interfaces.Loss`; "none" gives [*S]; weights [*S, 4] count by their mean."""
        return boxwise.box_loss(self, self._per_box, pred, target, weight, avg_factor, reduction)

    def _per_box(self, pred: Tensor, target: Tensor) -> Tensor:
        outer = torch.minimum(pred[..., :2], target[..., :2])  # corner of the enclosing box
        first = torch.maximum(pred[..., :2], target[..., :2])
        last = torch.minimum(pred[..., 2:], target[..., 2:])
        low, high = torch.minimum(first, last) - outer, torch.maximum(first, last) - outer
        first, last = first - outer, last - outer
        signed = last.prod(-1) + low.prod(-1) - first[..., 0] * high[..., 1] - high[..., 0] * first[..., 1]
        union = geometry.area(pred) + geometry.area(target) - signed + self.eps
        missing = 1 - signed / union
        # Not F.smooth_l1_loss: where rounding makes it negative, the parabola goes on.
        square = 0.5 * missing.square() / self.smooth_point
        return torch.where(missing < self.smooth_point, square, missing - 0.5 * self.smooth_point)
