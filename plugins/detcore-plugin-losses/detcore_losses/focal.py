"""The focal loss."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from detcore.interfaces.loss import ClassificationLoss, Reduction
from detcore_losses import focal_terms as terms
from detcore_losses import lean
from detcore_losses.focal_terms import ScaledBackground
from detcore_losses.labels import combine, holds_labels, one_hot
from detcore_losses.reduction import align_weight, check_reduction, finish, upcast

_OWNER = "FocalLoss"


class FocalLoss(ClassificationLoss):
    """Sigmoid cross entropy, with the terms that are well predicted already scaled down.

    For a class of probability p: ``-alpha (1 - p)^gamma log p`` where it is the label, ``-(1 - alpha) p^gamma
    log(1 - p)`` where it is not. A soft target t between has ``|t - p|``-like interpolations of all three
    factors. There is one loss per value; "mean" without ``avg_factor`` divides by rows times channels.

    Labels outside 0..K are ignored where negative, background above. With labels nothing of the size of
    ``pred`` is kept for the backward pass but ``pred`` itself, and "mean" and "sum" allocate nothing of its
    size in the forward pass.

    Source: Lin et al., Focal Loss for Dense Object Detection (arXiv:1708.02002).

    Args:
        use_sigmoid: Always true; a softmax form is not defined.
        gamma: Exponent of the scaling; 0 is cross entropy.
        alpha: Weight of positives; negatives get one minus it.
        activated: Whether ``pred`` holds probabilities rather than logits.
        reduction: How the values are reduced; see :func:`~detcore_losses.reduce_loss`.
        loss_weight: Factor of the result.
    """

    def __init__(
        self,
        *,
        use_sigmoid: bool = True,
        gamma: Annotated[float, Field(ge=0)] = 2.0,
        alpha: Annotated[float, Field(ge=0, le=1)] = 0.25,
        activated: bool = False,
        reduction: Reduction = "mean",
        loss_weight: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        super().__init__()
        if not use_sigmoid:
            raise ValueError(
                "use_sigmoid should be true: the focal loss is defined on sigmoids; "
                "for a softmax use CrossEntropyLoss"
            )
        self.gamma = gamma
        self.alpha = alpha
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
        """See :class:`~detcore.interfaces.ClassificationLoss`; ``quality`` is not looked at.

        Returns:
            For reduction "none" [*S, C]; else a scalar.

        Raises:
            ConfigError: Shapes that do not fit, or ``avg_factor`` with reduction "sum".
        """
        reduction = reduction or self.reduction
        check_reduction(avg_factor, reduction, _OWNER)
        labels = holds_labels(pred, target, _OWNER)
        if weight is not None:
            weight = align_weight(upcast(weight), pred, _OWNER)
        if labels and not self.activated:
            summed = reduction != "none"
            background = ScaledBackground(self.gamma, 1 - self.alpha)
            loss = lean.label_loss(background, self._positive, pred, target, weight, summed=summed)
        else:
            used = (target >= 0)[..., None] if labels else None
            target = one_hot(target, pred) if labels else target
            loss = lean.value_loss(self._per_value, pred, target, combine(weight, used, pred))
        loss = finish(loss, pred.numel(), avg_factor, reduction, _OWNER)
        return self.loss_weight * loss

    def _positive(self, x: Tensor, quality: Tensor) -> Tensor:
        return ScaledBackground(self.gamma, self.alpha).formula(-x)

    def _per_value(self, pred: Tensor, target: Tensor) -> Tensor:
        formula = terms.of_soft_probabilities if self.activated else terms.of_soft_logits
        return formula(pred, target, self.gamma, self.alpha)
