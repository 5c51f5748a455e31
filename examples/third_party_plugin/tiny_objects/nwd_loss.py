"""The loss of the normalised Wasserstein distance."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from detcore.interfaces import BoxLoss
from detcore.interfaces.loss import Reduction
from detcore_losses import reduce_loss
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from tiny_objects.wasserstein import as_gaussian, closeness


class NWDLoss(BoxLoss):
    """1 - NWD: one minus the normalised Wasserstein distance of the predicted and the true box.

    Source: Wang et al., A Normalized Gaussian Wasserstein Distance for Tiny Object Detection (arXiv:2110.13389),
    equations 8 and 12.

    Args:
        size: The dataset's typical size of an object (C in the paper), in pixels; 12.8 is AI-TOD's.
        reduction: How the values are reduced; see :func:`detcore_losses.reduce_loss`.
        loss_weight: Factor of the result.
    """

    space: ClassVar[Literal["codes", "boxes"]] = "boxes"

    def __init__(
        self,
        *,
        size: Annotated[float, Field(gt=0)] = 12.8,
        reduction: Reduction = "mean",
        loss_weight: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        super().__init__()
        self.size, self.reduction, self.loss_weight = size, reduction, loss_weight

    def forward(
        self,
        pred: Float[Tensor, "*S 4"],
        target: Float[Tensor, "*S 4"],
        *,
        weight: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
        reduction: Reduction | None = None,
    ) -> Tensor:
        """See :class:`detcore.interfaces.Loss`; a weight per value counts by its row's mean."""
        if weight is not None and weight.dim() == pred.dim():
            weight = weight.mean(dim=-1)
        squared = (as_gaussian(pred) - as_gaussian(target)).square().sum(dim=-1)
        reduced = reduce_loss(
            1 - closeness(squared, self.size),
            weight=weight,
            avg_factor=avg_factor,
            reduction=reduction or self.reduction,
            owner="NWDLoss",
        )
        return self.loss_weight * reduced
