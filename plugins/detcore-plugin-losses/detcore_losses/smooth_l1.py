"""The smooth L1 loss."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from detcore.interfaces.loss import BoxLoss, Reduction
from detcore_losses.boxwise import code_loss


class SmoothL1Loss(BoxLoss):
    """The difference d of each value: d² / (2 beta) where d < beta, d - beta / 2 beyond.

    Source: Girshick, Fast R-CNN (arXiv:1504.08083); beta as in Detectron.

    Args:
        beta: Where the parabola ends, in units of the values.
        reduction: How the values are reduced; see :func:`~detcore_losses.reduce_loss`.
        loss_weight: Factor of the result.
    """

    def __init__(
        self,
        *,
        beta: Annotated[float, Field(gt=0)] = 1.0,
        reduction: Reduction = "mean",
        loss_weight: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        super().__init__()
        self.beta = beta
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
        return code_loss(self, self._difference, pred, target, weight, avg_factor, reduction)

    def _difference(self, pred: Tensor, target: Tensor) -> Tensor:
        return F.smooth_l1_loss(pred, target, reduction="none", beta=self.beta)
