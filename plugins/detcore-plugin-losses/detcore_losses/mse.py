"""The squared difference."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from detcore.interfaces.loss import BoxLoss, Reduction
from detcore_losses.boxwise import code_loss


class MSELoss(BoxLoss):
    """The squared difference of each value, of tensors of any shape.

    Args:
        reduction: How the values are reduced; see :func:`~detcore_losses.reduce_loss`.
        loss_weight: Factor of the result.
    """

    def __init__(
        self, *, reduction: Reduction = "mean", loss_weight: Annotated[float, Field(ge=0)] = 1.0
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(
        self,
        pred: Float[Tensor, "*S D"],
        target: Float[Tensor, "*S D"],
        *,
        weight: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
        reduction: Reduction | None = None,
    ) -> Tensor:
        """See :class:`~detcore.interfaces.Loss`; "none" gives [*S, D]."""
        return code_loss(self, _squared, pred, target, weight, avg_factor, reduction)


def _squared(pred: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(pred, target, reduction="none")
