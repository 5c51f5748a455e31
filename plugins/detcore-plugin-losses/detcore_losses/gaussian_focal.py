"""The focal loss on Gaussian heat maps."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from detcore.errors import ConfigError
from detcore.interfaces.loss import Loss, Reduction
from detcore_losses import lean
from detcore_losses.boxwise import check_shapes
from detcore_losses.focal_terms import EPS, power
from detcore_losses.reduction import align_weight, check_reduction, finish, upcast

_OWNER = "GaussianFocalLoss"


class GaussianFocalLoss(Loss):
    """The focal loss of probabilities against a map with a Gaussian around each object.

    For a probability p and the target t: ``-(1 - p)^alpha log p`` where t is 1, the peak of a Gaussian, and
    ``-(1 - t)^gamma p^alpha log(1 - p)`` elsewhere. There is one loss per value; nothing of the size of ``pred``
    is kept for the backward pass but ``pred`` and ``target``.

    Source: Law and Deng, CornerNet (arXiv:1808.01244); the form with stated positives from Zhou et al.,
    Probabilistic two-stage detection (CenterNet2, arXiv:2103.07461).

    Args:
        alpha: Exponent of the scaling of what is well predicted.
        gamma: Exponent of the scaling of negatives near a peak.
        pos_weight: Weight of positives.
        neg_weight: Weight of negatives.
        reduction: How the values are reduced; see :func:`~detcore_losses.reduce_loss`.
        loss_weight: Factor of the result.
    """

    def __init__(
        self,
        *,
        alpha: Annotated[float, Field(ge=0)] = 2.0,
        gamma: Annotated[float, Field(ge=0)] = 4.0,
        pos_weight: Annotated[float, Field(ge=0)] = 1.0,
        neg_weight: Annotated[float, Field(ge=0)] = 1.0,
        reduction: Reduction = "mean",
        loss_weight: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma
        self.pos_weight = pos_weight
        self.neg_weight = neg_weight
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(
        self,
        pred: Float[Tensor, "*S"],
        target: Float[Tensor, "*S"],
        *,
        weight: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
        reduction: Reduction | None = None,
        pos_inds: Int[Tensor, "P"] | None = None,
        pos_labels: Int[Tensor, "P"] | None = None,
    ) -> Tensor:
        """See :class:`~detcore.interfaces.Loss`.

        Args:
            pred: Probabilities, of any shape.
            target: The Gaussians, 0..1, of the same shape.
            weight: Per value, or per row (leading dimensions).
            avg_factor: Divisor of the sum in place of the count; for reduction "mean" only.
            reduction: Replaces the loss's own.
            pos_inds: Rows of the positives, which need not be where ``target`` is 1; a place counts as often as it
                occurs. ``pred`` is [N, C] then, and "mean" without ``avg_factor`` is that of the positives plus
                that of all values.
            pos_labels: Their channels.

        Returns:
            For reduction "none" the shape of ``pred``; else a scalar.

        Raises:
            ConfigError: Shapes that do not fit, one of ``pos_inds`` and ``pos_labels`` without the other, or
                ``avg_factor`` with reduction "sum".
        """
        reduction = reduction or self.reduction
        check_reduction(avg_factor, reduction, _OWNER)
        check_shapes(pred, target, _OWNER)
        if weight is not None:
            weight = align_weight(upcast(weight), pred, _OWNER)
        if (pos_inds is None) != (pos_labels is None):
            raise ConfigError("pos_inds and pos_labels belong together; give both or neither", _OWNER)
        if pos_inds is None or pos_labels is None:
            loss = lean.value_loss(self._per_value, pred, target, weight)
            return self.loss_weight * finish(loss, pred.numel(), avg_factor, reduction, _OWNER)
        return self.loss_weight * self._at(
            pred, target, weight, (pos_inds, pos_labels), avg_factor, reduction
        )

    def _per_value(self, p: Tensor, target: Tensor) -> Tensor:
        return torch.where(target == 1, self._positive(p), self._negative(p, target))

    def _positive(self, p: Tensor) -> Tensor:
        return -self.pos_weight * (p + EPS).log() * power(1 - p, self.alpha)

    def _negative(self, p: Tensor, target: Tensor) -> Tensor:
        return -self.neg_weight * (1 - p + EPS).log() * power(p, self.alpha) * (1 - target).pow(self.gamma)

    def _at(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None,
        places: tuple[Tensor, Tensor],
        avg_factor: Tensor | float | None,
        reduction: Reduction,
    ) -> Tensor:
        """The form with stated positives."""
        negative = lean.value_loss(self._negative, pred, target, weight)
        own = upcast(pred[places])
        if weight is not None:
            scale = weight.expand(pred.shape)[places]
            positive = self._positive(own.masked_fill(scale == 0, 1)) * scale
        else:
            positive = self._positive(own)
        if reduction == "none":
            return negative.index_put(places, positive, accumulate=True)
        if reduction == "mean" and avg_factor is None:
            return negative.sum() / max(negative.numel(), 1) + positive.sum() / max(positive.numel(), 1)
        return finish(negative.sum() + positive.sum(), 1, avg_factor, reduction, _OWNER)
