"""The seesaw loss."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from detcore.component import wired
from detcore.distributed import reduce_mean, world_size
from detcore.errors import ConfigError
from detcore.interfaces.loss import ClassificationLoss, Reduction
from detcore_losses.labels import holds_labels
from detcore_losses.reduction import align_weight, check_reduction, finish, upcast

_OWNER = "SeesawLoss"


class SeesawTerms(NamedTuple):
    """The two terms.

    Args:
        objectness: Whether a row shows an object.
        classes: Of which class it is.
    """

    objectness: Tensor
    classes: Tensor


class SeesawLoss(ClassificationLoss):
    """Softmax cross entropy for long-tailed classes, with objectness as a softmax of its own.

    A negative class gets its gradient from a row of another class scaled down where it is the rarer of the two
    (mitigation), and up again where it is predicted higher (compensation). How often classes occurred is counted
    in ``cum_samples``, in training and over all processes, the present rows included.

    There are K + 2 channels: K classes, object, background. There is one loss per row; of "mean" without
    ``avg_factor`` the first term is divided by the rows, the second by those with an object.

    Source: Wang et al., Seesaw Loss for Long-Tailed Instance Segmentation (arXiv:2008.10032).

    Args:
        num_classes: K; supplied by the head.
        p: Strength of the mitigation.
        q: Strength of the compensation.
        eps: Smallest score of the label that the compensation divides by.
        count_ignored: Whether rows of weight 0 count as occurrences; true gives the reference's numbers.
        reduction: How the rows' losses are reduced; see :func:`~detcore_losses.reduce_loss`.
        loss_weight: Factor of the result.
    """

    additive: ClassVar[bool] = False

    cum_samples: Tensor

    def __init__(
        self,
        *,
        num_classes: Annotated[int, Field(ge=1)] = wired(),
        p: Annotated[float, Field(ge=0)] = 0.8,
        q: Annotated[float, Field(ge=0)] = 2.0,
        eps: Annotated[float, Field(gt=0)] = 1e-2,
        count_ignored: bool = False,
        reduction: Reduction = "mean",
        loss_weight: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.p = p
        self.q = q
        self.eps = eps
        self.count_ignored = count_ignored
        self.reduction = reduction
        self.loss_weight = loss_weight
        self.register_buffer("cum_samples", torch.zeros(num_classes + 1))

    def channels(self, num_classes: int) -> int:
        """K + 2 logits: the classes, object, background."""
        return num_classes + 2

    def scores(self, logits: Float[Tensor, "*S C"]) -> Float[Tensor, "*S K"]:
        """Probability of an object times that of each class, in float32 at least."""
        classes, objectness = upcast(logits).tensor_split((-2,), -1)
        return classes.softmax(-1) * objectness.softmax(-1)[..., :1]

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
        """See :class:`~detcore.interfaces.ClassificationLoss`: both terms together.

        Args:
            pred: Logits.
            target: Labels; K is background, negative ones are ignored.
            weight: Per row.
            avg_factor: Divisor of both sums in place of the counts; for reduction "mean" only.
            reduction: Replaces the loss's own.
            quality: Not looked at.

        Returns:
            For reduction "none" [*S]; else a scalar.

        Raises:
            ConfigError: Shapes that do not fit, or ``avg_factor`` with reduction "sum".
        """
        terms = self.terms(pred, target, weight=weight, avg_factor=avg_factor, reduction=reduction)
        return terms.objectness + terms.classes

    def terms(
        self,
        pred: Float[Tensor, "*S C"],
        target: Int[Tensor, "*S"],
        *,
        weight: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
        reduction: Reduction | None = None,
    ) -> SeesawTerms:
        """The two terms of :meth:`forward`; for "none" both have the rows of ``pred``, background costs no class."""
        reduction = reduction or self.reduction
        check_reduction(avg_factor, reduction, _OWNER)
        self._check(pred, target)
        weight = pred.new_ones(target.shape) if weight is None else weight
        scale = align_weight(upcast(weight), target, _OWNER).reshape(-1) * (target >= 0).reshape(-1)
        labels = target.reshape(-1).clamp(0, self.num_classes)
        rows = upcast(pred).flatten(0, -2).masked_fill((scale == 0)[:, None], 0)
        self._count(labels, (target.reshape(-1) >= 0) if self.count_ignored else scale != 0)

        present = labels < self.num_classes
        objectness = F.cross_entropy(rows[:, -2:], (~present).long(), reduction="none") * scale
        classes = self._of_classes(rows[:, :-2], labels, present) * scale
        found = present.sum().clamp(min=1)
        terms = []
        for term, count in ((objectness, max(len(labels), 1)), (classes, found)):
            divisor = count if reduction == "mean" and avg_factor is None else avg_factor
            term = finish(term.reshape(target.shape), len(labels), divisor, reduction, _OWNER)
            terms.append(self.loss_weight * term)
        return SeesawTerms(*terms)

    def _check(self, pred: Tensor, target: Tensor) -> None:
        if not holds_labels(pred, target, _OWNER):
            raise ConfigError("target should hold labels, not a value per logit", _OWNER)
        if pred.shape[-1] != self.num_classes + 2:
            raise ConfigError(
                f"pred should have num_classes + 2 = {self.num_classes + 2} channels, got {pred.shape[-1]}; "
                "leave num_classes out where the loss is part of a head",
                _OWNER,
            )

    @torch.no_grad()
    def _update(self, labels: Tensor, counted: Tensor) -> None:
        counts = torch.zeros_like(self.cum_samples).index_add_(0, labels, counted.to(self.cum_samples.dtype))
        self.cum_samples += reduce_mean(counts) * world_size()

    def _count(self, labels: Tensor, counted: Tensor) -> None:
        """Adds to the occurrences, unless rows are only ranked or evaluated."""
        if self.training and torch.is_grad_enabled():
            self._update(labels, counted)

    def _of_classes(self, logits: Tensor, labels: Tensor, present: Tensor) -> Tensor:
        """The loss of each row's class, 0 for background; in eager mode only rows with an object are computed."""
        if torch.compiler.is_compiling():
            loss = self._seesaw(logits, torch.where(present, labels, 0))
            return torch.where(present, loss, 0)
        (chosen,) = present.nonzero(as_tuple=True)
        loss = self._seesaw(logits[chosen], labels[chosen])
        return torch.zeros_like(logits[:, 0]).index_put((chosen,), loss)

    def _seesaw(self, logits: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            counts = self.cum_samples[:-1].clamp(min=1).to(logits.dtype).log()
            rarer = (counts - counts[labels][:, None]).clamp(
                max=0
            )  # log of the ratio; 0 for the label itself
            scores = logits.log_softmax(-1)
            own = scores.gather(1, labels[:, None]).clamp(min=math.log(self.eps))
            higher = (scores - own).clamp(min=0)
        return F.cross_entropy(logits + self.p * rarer + self.q * higher, labels, reduction="none")
