"""The bounded IoU loss."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from detcore.interfaces.loss import BoxLoss, Reduction
from detcore_losses import boxwise


class BoundedIoULoss(BoxLoss):
    """For each of centre x, centre y, width and height: how high the IoU could be if all others were right.

    One minus that bound goes through a smooth L1, so there is one loss per coordinate.

    Source: Tychsen-Smith and Petersson, Improving Object Localization with Fitness NMS and Bounded IoU Loss
    (arXiv:1711.00164).

    Args:
        beta: Where the parabola of the smooth L1 ends.
        eps: Added to divisors, in pixels.
        reduction: How the coordinates' losses are reduced; see :func:`~detcore_losses.reduce_loss`.
        loss_weight: Factor of the result.
    """

    space: ClassVar[Literal["codes", "boxes"]] = "boxes"

    def __init__(
        self,
        *,
        beta: Annotated[float, Field(gt=0)] = 0.2,
        eps: Annotated[float, Field(gt=0)] = 1e-3,
        reduction: Reduction = "mean",
        loss_weight: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        super().__init__()
        self.beta = beta
        self.eps = eps
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
        """See :class:`~detcore.interfaces.Loss`; "none" gives [*S, 4]."""
        return boxwise.box_loss(self, self._per_coordinate, pred, target, weight, avg_factor, reduction)

    def _per_coordinate(self, pred: Tensor, target: Tensor) -> Tensor:
        size, wanted = pred[..., 2:] - pred[..., :2], target[..., 2:] - target[..., :2]
        # of the centres, doubled
        apart = ((pred[..., :2] + pred[..., 2:]) - (target[..., :2] + target[..., 2:])).abs()
        centre = (wanted - apart) / (wanted + apart + self.eps)
        centre = torch.maximum(centre, torch.zeros_like(centre))
        extent = torch.minimum(wanted / (size + self.eps), size / (wanted + self.eps))
        missing = 1 - torch.cat((centre, extent), -1)
        return F.smooth_l1_loss(missing, torch.zeros_like(missing), reduction="none", beta=self.beta)
