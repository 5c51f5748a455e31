"""The distance IoU loss."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from detcore.interfaces.loss import BoxLoss, Reduction
from detcore_losses import boxwise


class DIoULoss(BoxLoss):
    """One minus the distance IoU: the IoU less the centres' distance relative to the enclosing diagonal.

    Source: Zheng et al., Distance-IoU Loss (arXiv:1911.08287).

    Args:
        eps: Added to the union and to the squared diagonal, in squared pixels.
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
        return 1 - (overlap - distance)
