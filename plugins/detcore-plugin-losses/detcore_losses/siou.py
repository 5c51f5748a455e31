"""The SIoU loss."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from detcore import boxes as geometry
from detcore.interfaces.loss import BoxLoss, Reduction
from detcore_losses import boxwise


class SIoULoss(BoxLoss):
    """One minus the IoU, plus costs of distance and shape; distance costs less the closer it is to an axis.

    Source: Gevorgyan, SIoU Loss: More Powerful Learning for Bounding Box Regression (arXiv:2205.12740).

    Args:
        eps: Added to the union, the offset of the centres and the sides; smallest side of the enclosing box.
        neg_gamma: Whether the exponent of the distance cost is negative, as it should be. With a positive one, the
            reference's default, distance lowers the loss.
        reduction: How the boxes' losses are reduced; see :func:`~detcore_losses.reduce_loss`.
        loss_weight: Factor of the result.
    """

    space: ClassVar[Literal["codes", "boxes"]] = "boxes"

    def __init__(
        self,
        *,
        eps: Annotated[float, Field(gt=0)] = 1e-6,
        neg_gamma: bool = True,
        reduction: Reduction = "mean",
        loss_weight: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.neg_gamma = neg_gamma
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
        intersection = geometry.aligned_intersection(pred, target)
        union = geometry.area(pred) + geometry.area(target) - intersection + self.eps
        offset = ((target[..., :2] + target[..., 2:]) - (pred[..., :2] + pred[..., 2:])) / 2 + self.eps
        cost = self._distance_cost(pred, target, offset) + self._shape_cost(pred, target)
        return 1 - (intersection / union - cost / 2).clamp(min=-1, max=1)

    def _distance_cost(self, pred: Tensor, target: Tensor, offset: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(offset, dim=-1)
        across, along = (offset.abs() / length[..., None]).unbind(-1)
        sine = torch.where(along <= math.sin(math.pi / 4), along, across)
        angle = (2 * sine.asin() - math.pi / 2).cos()
        gamma = angle - 2 if self.neg_gamma else 2 - angle
        relative = (offset / boxwise.enclosing_size(pred, target).clamp(min=self.eps)).square()
        return (1 - torch.exp(gamma[..., None] * relative)).sum(-1)

    def _shape_cost(self, pred: Tensor, target: Tensor) -> Tensor:
        size = pred[..., 2:] - pred[..., :2] + self.eps
        wanted = target[..., 2:] - target[..., :2] + self.eps
        relative = (size - wanted).abs() / torch.maximum(size, wanted)
        return (1 - torch.exp(-relative)).pow(4).sum(-1)
