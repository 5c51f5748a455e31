"""The balanced L1 loss."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from detcore.interfaces.loss import BoxLoss, Reduction
from detcore_losses.boxwise import code_loss


class BalancedL1Loss(BoxLoss):
    """An L1 loss whose slope grows with the logarithm of the difference, and is gamma from beta on.

    For a difference x and b = exp(gamma / alpha) - 1 the slope is ``alpha log(b x / beta + 1)`` below beta.

    Source: Pang et al., Libra R-CNN (arXiv:1904.02701), where beta is 1. The reference's value for another beta
    is continuous, but its slope jumps at beta.

    Args:
        alpha: Promotes small differences; the smaller, the more.
        gamma: Slope of large differences.
        beta: Where the slope stops growing, in units of the values.
        smooth: Whether the slope is continuous for every beta; false gives the reference's numbers.
        reduction: How the values are reduced; see :func:`~detcore_losses.reduce_loss`.
        loss_weight: Factor of the result.
    """

    def __init__(
        self,
        *,
        alpha: Annotated[float, Field(gt=0)] = 0.5,
        gamma: Annotated[float, Field(gt=0)] = 1.5,
        beta: Annotated[float, Field(gt=0)] = 1.0,
        smooth: bool = True,
        reduction: Reduction = "mean",
        loss_weight: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma
        self.beta = beta
        self.smooth = smooth
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
        return code_loss(self, self._per_value, pred, target, weight, avg_factor, reduction)

    def _per_value(self, pred: Tensor, target: Tensor) -> Tensor:
        x, b = (pred - target).abs(), math.expm1(self.gamma / self.alpha)
        scale = self.beta if self.smooth else 1.0
        inner = torch.minimum(x, x.new_tensor(self.beta))  # safe where the other branch is taken
        below = self.alpha / b * (b * inner + scale) * torch.log1p(b * inner / self.beta) - self.alpha * inner
        above = self.gamma * x + self.gamma * scale / b - self.alpha * self.beta
        return torch.where(x < self.beta, below, above)
