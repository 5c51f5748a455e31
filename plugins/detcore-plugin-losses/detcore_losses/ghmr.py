"""The gradient harmonising loss of regression."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from detcore.interfaces.loss import BoxLoss, Reduction
from detcore_losses import ghm
from detcore_losses.boxwise import check_shapes
from detcore_losses.reduction import align_weight, check_reduction, reduce_loss, upcast

_OWNER = "GHMR"


class GHMR(BoxLoss):
    """A smooth L1 loss, each value weighted by how few others have a gradient as large as its own.

    For a difference d the loss is ``sqrt(d^2 + mu^2) - mu``, the norm of its gradient ``|d| / sqrt(d^2 + mu^2)``.
    Norms fall into bins, and a value counts by the inverse of its bin's mass. "none" gives the weighted losses,
    "sum" their sum, and "mean" divides it by the sum of the weights: the loss has its own divisor, and
    ``avg_factor`` is not looked at. Weights count in bins by their size.

    A value depends on all others, so heads call the loss level by level.

    Source: Li et al., Gradient Harmonized Single-stage Detector (arXiv:1811.05181).

    Args:
        mu: Where the parabola becomes a line, in units of the values.
        bins: Number of bins.
        momentum: Share of the past in the bins' masses, which are then moving averages; 0 for none.
        bias_correction: Whether averages that began at 0 are corrected for it; the reference's are not.
        reduction: How the values are reduced; see :func:`~detcore_losses.reduce_loss`.
        loss_weight: Factor of the result.
    """

    additive: ClassVar[bool] = False

    def __init__(
        self,
        *,
        mu: Annotated[float, Field(gt=0)] = 0.02,
        bins: Annotated[int, Field(ge=1)] = 10,
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        bias_correction: bool = True,
        reduction: Reduction = "mean",
        loss_weight: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        super().__init__()
        self.mu = mu
        self.bins = bins
        self.momentum = momentum
        self.reduction = reduction
        self.loss_weight = loss_weight
        ghm.register_state(self, bins, momentum, bias_correction)

    def forward(
        self,
        pred: Float[Tensor, "*S D"],
        target: Float[Tensor, "*S D"],
        *,
        weight: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
        reduction: Reduction | None = None,
    ) -> Tensor:
        """See :class:`~detcore.interfaces.Loss`; "none" gives [*S, D]; ``avg_factor`` is not looked at."""
        reduction = reduction or self.reduction
        check_reduction(avg_factor, reduction, _OWNER)
        check_shapes(pred, target, _OWNER)
        scale = torch.ones_like(upcast(pred)) if weight is None else upcast(weight).detach()
        scale = align_weight(scale, pred, _OWNER).expand(pred.shape)
        difference = (upcast(pred) - upcast(target)).masked_fill(scale == 0, 0)
        length = torch.sqrt(difference.square() + self.mu**2)
        index = ghm.bin_of((difference / length).detach().abs(), self.bins)
        mass = ghm.mass_of(index, scale, self.bins)
        factors, total = ghm.harmonise(self, mass, self.momentum, update=ghm.is_step(self))
        loss = reduce_loss(
            (length - self.mu) * factors[index].to(length.dtype),
            weight=scale,
            avg_factor=total if reduction == "mean" else None,
            reduction=reduction,
            owner=_OWNER,
        )
        return self.loss_weight * loss
