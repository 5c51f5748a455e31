"""The focal loss."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from detcore.interfaces.loss import ClassificationLoss, Reduction
from detcore_losses import focal_terms as terms
from detcore_losses.labels import holds_labels
from detcore_losses.lean_focal import lean_focal
from detcore_losses.reduction import align_weight, check_reduction, normalise, reduce_loss, upcast

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
        if labels and not self.activated and _may_be_lean(weight):
            summed = reduction != "none"
            loss = lean_focal(pred, target, weight, self.gamma, self.alpha, summed)
            if summed:
                loss = normalise(loss, pred.numel(), avg_factor, reduction, _OWNER)
        else:
            loss = self._per_value(pred, target, weight, labels)
            loss = reduce_loss(loss, weight=weight, avg_factor=avg_factor, reduction=reduction, owner=_OWNER)
        return self.loss_weight * loss

    def _per_value(self, pred: Tensor, target: Tensor, weight: Tensor | None, labels: bool) -> Tensor:
        """The loss of each value, as a formula that autograd and the compiler see through."""
        pred = upcast(pred)
        if weight is not None:
            pred = pred.masked_fill(weight == 0, 0)
        if not labels:
            formula = terms.of_soft_probabilities if self.activated else terms.of_soft_logits
            return formula(pred, target.to(pred.dtype), self.gamma, self.alpha)
        on_labels = terms.of_label_probabilities if self.activated else terms.of_label_logits
        return on_labels(pred, target, self.gamma, self.alpha)


def _may_be_lean(weight: Tensor | None) -> bool:
    """The compiler fuses the formula by itself; weights that are learned need autograd."""
    learned = weight is not None and weight.requires_grad and torch.is_grad_enabled()
    return not learned and not torch.compiler.is_compiling()
