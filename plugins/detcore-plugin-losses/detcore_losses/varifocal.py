"""The varifocal loss."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from detcore.interfaces.loss import ClassificationLoss, Reduction
from detcore_losses import focal_terms as terms
from detcore_losses import lean
from detcore_losses.labels import check_rows, holds_labels
from detcore_losses.reduction import align_weight, check_reduction, finish, upcast

_OWNER = "VarifocalLoss"


class VarifocalLoss(ClassificationLoss):
    """Sigmoid cross entropy with how well positives are localised; only negatives are scaled down.

    For a class of probability p and the quality q: ``q`` times the cross entropy of p with q where q is above 0,
    ``-alpha p^gamma log(1 - p)`` where it is 0, as it is where the class is not the label. There is one loss per
    value.

    ``target`` holds labels, together with ``quality`` (1 where None), or the q of every class. Labels above K-1
    are background, rows with negative ones are ignored. Nothing of the size of ``pred`` is kept for the backward
    pass but ``pred`` and a ``target`` of its size.

    Source: Zhang et al., VarifocalNet (arXiv:2008.13367).

    Args:
        alpha: Weight of negatives.
        gamma: Exponent of their scaling.
        iou_weighted: Whether positives are weighted by their quality; by 1 otherwise.
        reduction: How the values are reduced; see :func:`~detcore_losses.reduce_loss`.
        loss_weight: Factor of the result.
    """

    uses_quality: ClassVar[bool] = True

    def __init__(
        self,
        *,
        alpha: Annotated[float, Field(ge=0)] = 0.75,
        gamma: Annotated[float, Field(ge=0)] = 2.0,
        iou_weighted: bool = True,
        reduction: Reduction = "mean",
        loss_weight: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma
        self.iou_weighted = iou_weighted
        self.reduction = reduction
        self.loss_weight = loss_weight

    def channels(self, num_classes: int) -> int:
        """K logits; background is the absence of all."""
        return num_classes

    def scores(self, logits: Float[Tensor, "*S C"]) -> Float[Tensor, "*S K"]:
        """Probabilities of the K classes, in float32 at least."""
        return upcast(logits).sigmoid()

    def forward(
        self,
        pred: Float[Tensor, "*S C"],
        target: Int[Tensor, "*S"] | Float[Tensor, "*S C"],
        *,
        weight: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
        reduction: Reduction | None = None,
        quality: Float[Tensor, "*S"] | None = None,
    ) -> Tensor:
        """See :class:`~detcore.interfaces.ClassificationLoss`.

        Returns:
            For reduction "none" [*S, C]; else a scalar.

        Raises:
            ConfigError: Shapes that do not fit, or ``avg_factor`` with reduction "sum".
        """
        reduction = reduction or self.reduction
        check_reduction(avg_factor, reduction, _OWNER)
        if weight is not None:
            weight = align_weight(upcast(weight), pred, _OWNER)
        if holds_labels(pred, target, _OWNER):
            check_rows(quality, target, "quality", _OWNER)
            background, summed = terms.ScaledBackground(self.gamma, self.alpha), reduction != "none"
            loss = lean.label_loss(background, self._per_value, pred, target, weight, quality, summed=summed)
        else:
            loss = lean.value_loss(self._per_value, pred, target, weight)
        return self.loss_weight * finish(loss, pred.numel(), avg_factor, reduction, _OWNER)

    def _per_value(self, x: Tensor, target: Tensor) -> Tensor:
        positive = target if self.iou_weighted else torch.ones_like(target)
        negative = self.alpha * terms.power(x.sigmoid(), self.gamma)
        return torch.where(target > 0, positive, negative) * terms.binary_entropy(x, target)
