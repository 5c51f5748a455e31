"""The complete IoU loss."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from detcore.interfaces.loss import BoxLoss, Reduction
from detcore_losses import boxwise


class CIoULoss(BoxLoss):
    """The distance IoU loss plus a term for the aspect ratio, which counts where the IoU is above one half.

    Source: Zheng et al., Distance-IoU Loss (arXiv:1911.08287); the threshold from their Enhancing Geometric
    Factors in Model Learning and Inference (arXiv:2005.03572). The reference gives NaN for equal boxes
    (0 / 0 in the weight of the aspect term); here both value and gradient are 0.

    Args:
        eps: Added to the union, the squared diagonal and the heights.
        reduction: How the boxes' losses are reduced; see :func:`~detcore_losses.reduce_loss`.
        loss_weight: Factor of the result.
    """

    space: ClassVar[Literal["codes", "boxes"]] = "boxes"

    def __init__(
        self,
        *,
        eps: Annotated[float, Field(gt=0)] = 1e-6,
        reduction: Reduction = "mean",
        loss_weight: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        super().__init__()
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
        """See :class:`~detcore.interfaces.Loss`; "none" gives [*S]; weights [*S, 4] count by their mean."""
        return boxwise.box_loss(self, self._per_box, pred, target, weight, avg_factor, reduction)

    def _per_box(self, pred: Tensor, target: Tensor) -> Tensor:
        overlap, distance = boxwise.distance_iou(pred, target, self.eps)
        shape = (4 / math.pi**2) * (self._angle(target) - self._angle(pred)).square()
        with torch.no_grad():
            # Equal boxes: both shape and 1 - overlap are 0, and so is the weight of their ratio.
            rest = (1 - overlap + shape).clamp(min=torch.finfo(shape.dtype).tiny)
            weight = torch.where(overlap > 0.5, shape / rest, 0)
        return 1 - (overlap - distance - weight * shape).clamp(min=-1, max=1)

    def _angle(self, boxes: Tensor) -> Tensor:
        """The angle whose tangent is width / height; unlike the quotient, smooth where a height is 0."""
        return torch.atan2(boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1] + self.eps)
