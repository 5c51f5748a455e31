"""The IoU loss."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from detcore import boxes as geometry
from detcore.interfaces.loss import BoxLoss, Reduction
from detcore_losses import boxwise


class IoULoss(BoxLoss):
    """A falling function of the IoU.

    Source: Yu et al., UnitBox (arXiv:1608.01471), for "log".

    Args:
        mode: "linear" is 1 - IoU, "square" 1 - IoU², "log" -log(IoU).
        eps: Smallest IoU.
        reduction: How the boxes' losses are reduced; see :func:`~detcore_losses.reduce_loss`.
        loss_weight: Factor of the result.
    """

    space: ClassVar[Literal["codes", "boxes"]] = "boxes"

    def __init__(
        self,
        *,
        mode: Literal["linear", "square", "log"] = "log",
        eps: Annotated[float, Field(gt=0)] = 1e-6,
        reduction: Reduction = "mean",
        loss_weight: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        super().__init__()
        self.mode = mode
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
        overlap = boxwise.iou(pred, target, geometry.EPS)[0].clamp(min=self.eps)
        if self.mode == "linear":
            return 1 - overlap
        return 1 - overlap.square() if self.mode == "square" else -overlap.log()
