"""The quality focal loss."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from detcore.interfaces.loss import ClassificationLoss, Reduction
from detcore_losses import focal_terms as terms
from detcore_losses import lean
from detcore_losses.labels import check_rows, holds_labels, one_hot
from detcore_losses.reduction import align_weight, check_reduction, finish, upcast

_OWNER = "QualityFocalLoss"


class QualityFocalLoss(ClassificationLoss):
    """Sigmoid cross entropy with how well a positive is localised, scaled down where that is well predicted.

    For a class of probability p and the quality q, 0 where the class is not the label: ``|q - p|^beta`` times the
    cross entropy of p with q. There is one loss per row, the sum over its classes.

    ``target`` holds labels, together with ``quality`` (1 where None), or the q of every class. Labels outside
    0..K-1 are background. Nothing of the size of ``pred`` is kept for the backward pass but ``pred`` and a
    ``target`` of its size.

    Source: Li et al., Generalized Focal Loss (arXiv:2006.04388).

    Args:
        beta: Exponent of the scaling; 0 is cross entropy.
        activated: Whether ``pred`` holds probabilities rather than logits.
        reduction: How the rows' losses are reduced; see :func:`~detcore_losses.reduce_loss`.
        loss_weight: Factor of the result.
    """

    uses_quality: ClassVar[bool] = True

    def __init__(
        self,
        *,
        beta: Annotated[float, Field(ge=0)] = 2.0,
        activated: bool = False,
        reduction: Reduction = "mean",
        loss_weight: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        super().__init__()
        self.beta = beta
        self.activated = activated
        self.reduction = reduction
        self.loss_weight = loss_weight

    def channels(self, num_classes: int) -> int:
        """K logits; background is the absence of all."""
        return num_classes

    def scores(self, logits: Float[Tensor, "*S C"]) -> Float[Tensor, "*S K"]:
        """Probabilities of the K classes, in float32 at least."""
        return upcast(logits) if self.activated else upcast(logits).sigmoid()

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
            For reduction "none" [*S]; else a scalar.

        Raises:
            ConfigError: Shapes that do not fit, or ``avg_factor`` with reduction "sum".
        """
        reduction = reduction or self.reduction
        check_reduction(avg_factor, reduction, _OWNER)
        labels = holds_labels(pred, target, _OWNER)
        rows = pred[..., 0]
        if weight is not None:
            weight = align_weight(upcast(weight), rows, _OWNER)[..., None]
        if labels:
            target = torch.where(target < 0, pred.shape[-1], target)
            check_rows(quality, target, "quality", _OWNER)
        if labels and not self.activated:
            background, summed = terms.ScaledBackground(self.beta), reduction != "none"
            loss = lean.label_loss(background, self._positive, pred, target, weight, quality, summed=summed)
        else:
            target = one_hot(target, pred, quality) if labels else target
            loss = lean.value_loss(self._per_value, pred, target, weight)
        loss = loss.sum(-1) if reduction == "none" else loss
        return self.loss_weight * finish(loss, rows.numel(), avg_factor, reduction, _OWNER)

    def _positive(self, x: Tensor, quality: Tensor) -> Tensor:
        return self._scaled(terms.binary_entropy(x, quality), x.sigmoid(), quality)

    def _per_value(self, pred: Tensor, target: Tensor) -> Tensor:
        if self.activated:
            return self._scaled(terms.binary_entropy_of_probabilities(pred, target), pred, target)
        return self._positive(pred, target)

    def _scaled(self, entropy: Tensor, p: Tensor, target: Tensor) -> Tensor:
        return entropy * terms.power((target - p).abs(), self.beta)
