"""The distribution focal loss."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from detcore.errors import ConfigError
from detcore.interfaces.loss import Loss, Reduction
from detcore_losses.reduction import align_weight, reduce_loss, upcast

_OWNER = "DistributionFocalLoss"


class DistributionFocalLoss(Loss):
    """Cross entropy of a distribution over 0..n with a number between: its two neighbours share it.

    Source: Li et al., Generalized Focal Loss (arXiv:2006.04388). The reference raises for a target of n, here all
    of it belongs to the last bin.

    Args:
        reduction: How the rows' losses are reduced; see :func:`~detcore_losses.reduce_loss`.
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
        pred: Float[Tensor, "*S n"],
        target: Float[Tensor, "*S"],
        *,
        weight: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
        reduction: Reduction | None = None,
    ) -> Tensor:
        """See :class:`~detcore.interfaces.Loss`; "none" gives [*S].

        Args:
            pred: Logits of the bins 0..n, before a softmax.
            target: Numbers; those below 0 or above n count as the nearest of the two.
            weight: Per row.
            avg_factor: Divisor of the sum in place of the count; for reduction "mean" only.
            reduction: Replaces the loss's own.

        Raises:
            ConfigError: Shapes that do not fit, fewer than two bins, or ``avg_factor`` with reduction "sum".
        """
        last = pred.shape[-1] - 1
        if target.shape != pred.shape[:-1] or last < 1:
            raise ConfigError(
                f"target should have the shape of pred without the bins, of which there are two at least; "
                f"got {list(target.shape)} for pred {list(pred.shape)}",
                _OWNER,
            )
        pred, target = upcast(pred), upcast(target)
        if weight is not None:
            weight = align_weight(upcast(weight), target, _OWNER)
            unused = weight == 0
            pred, target = pred.masked_fill(unused[..., None], 0), target.masked_fill(unused, 0)
        place = target.clamp(0, last)[..., None]
        left = place.floor().clamp(max=last - 1)
        above = place - left
        bins = left.long() + torch.arange(2, device=left.device)
        logs = pred.log_softmax(-1).gather(-1, bins)
        loss = -(logs * torch.cat((1 - above, above), -1)).sum(-1)
        value = reduce_loss(
            loss,
            weight=weight,
            avg_factor=avg_factor,
            reduction=reduction or self.reduction,
            owner=_OWNER,
        )
        return self.loss_weight * value
