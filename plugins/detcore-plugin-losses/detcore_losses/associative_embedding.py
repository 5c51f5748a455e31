"""The loss of embeddings that tell which corners belong together."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from detcore.interfaces.loss import Loss, Reduction
from detcore_losses.boxwise import check_shapes
from detcore_losses.reduction import align_weight, reduce_loss, upcast

_OWNER = "AssociativeEmbeddingLoss"


class EmbeddingTerms(NamedTuple):
    """The two terms.

    Args:
        pull: Draws the two embeddings of an object together.
        push: Drives the embeddings of different objects apart.
    """

    pull: Tensor
    push: Tensor


class AssociativeEmbeddingLoss(Loss):
    """Pulls the embeddings of an object's two corners together, pushes those of an image's objects apart.

    With e the mean of an object's two embeddings, ``pull`` is their squared distances from e, averaged over the
    image's objects, and ``push`` is ``max(0, 1 - |e - e'|)``, averaged over its pairs of objects. There is one loss
    per image, 0 without objects. What a caller gets is their sum over the images, as in the reference; use
    reduction "mean" to average.

    Source: Newell et al., Associative Embedding (arXiv:1611.05424), in the form of Law and Deng, CornerNet
    (arXiv:1808.01244).

    Args:
        pull_weight: Factor of the first term.
        push_weight: Factor of the second term.
        reduction: How the images' losses are reduced; see :func:`~detcore_losses.reduce_loss`.
        loss_weight: Factor of both.
    """

    def __init__(
        self,
        *,
        pull_weight: Annotated[float, Field(ge=0)] = 0.25,
        push_weight: Annotated[float, Field(ge=0)] = 0.25,
        reduction: Reduction = "sum",
        loss_weight: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        super().__init__()
        self.pull_weight = pull_weight
        self.push_weight = push_weight
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(
        self,
        pred: Float[Tensor, "B M"],
        target: Float[Tensor, "B M"],
        *,
        weight: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
        reduction: Reduction | None = None,
        valid: Bool[Tensor, "B M"] | None = None,
    ) -> Tensor:
        """See :class:`~detcore.interfaces.Loss`; both terms together, for "none" [B].

        Args:
            pred: Embedding at the first (top left) corner of each object.
            target: Embedding at its second corner; gets a gradient too.
            weight: Per image.
            avg_factor: Divisor of the sum in place of the number of images; for reduction "mean" only.
            reduction: Replaces the loss's own.
            valid: Where there is an object; everywhere if None.

        Raises:
            ConfigError: Shapes that do not fit, or ``avg_factor`` with reduction "sum".
        """
        pull, push = self.terms(
            pred, target, weight=weight, avg_factor=avg_factor, reduction=reduction, valid=valid
        )
        return pull + push

    def terms(
        self,
        pred: Float[Tensor, "B M"],
        target: Float[Tensor, "B M"],
        *,
        weight: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
        reduction: Reduction | None = None,
        valid: Bool[Tensor, "B M"] | None = None,
    ) -> EmbeddingTerms:
        """The two terms of :meth:`forward`, each reduced and weighted."""
        check_shapes(pred, target, _OWNER)
        first, second = upcast(pred), upcast(target)
        valid = torch.ones_like(first, dtype=torch.bool) if valid is None else valid
        check_shapes(pred, valid, _OWNER, "valid")
        if weight is not None:
            weight = align_weight(upcast(weight), valid.any(1), _OWNER)
            valid = valid & (weight != 0)[:, None]
        first, second = first.masked_fill(~valid, 0), second.masked_fill(~valid, 0)
        count, mean = valid.sum(1), (first + second) / 2
        pull = (first - mean).square() + (second - mean).square()
        pull = (pull * valid).sum(1) / count.clamp(min=1)
        pairs = valid[:, :, None] & valid[:, None, :]
        pairs = pairs & ~torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
        near = (1 - (mean[:, :, None] - mean[:, None, :]).abs()).relu()
        push = (near * pairs).sum((1, 2)) / (count * (count - 1)).clamp(min=1)
        chosen = reduction or self.reduction
        pull, push = (
            reduce_loss(term, weight=weight, avg_factor=avg_factor, reduction=chosen, owner=_OWNER)
            for term in (pull, push)
        )
        return EmbeddingTerms(
            self.loss_weight * self.pull_weight * pull, self.loss_weight * self.push_weight * push
        )
