"""The cross entropy loss, softmax or sigmoid."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from detcore.errors import ConfigError
from detcore.interfaces.loss import ClassificationLoss, Reduction
from detcore_losses.labels import LabelEntries, holds_labels
from detcore_losses.reduction import align_weight, check_reduction, reduce_loss, upcast

_OWNER = "CrossEntropyLoss"
#: No label: what torch itself ignores where nothing else is said.
_NOTHING = -100


class CrossEntropyLoss(ClassificationLoss):
    """Cross entropy of logits with labels: softmax over the channels, or sigmoid for each channel.

    With softmax there are K + 1 channels, background last, and one loss per row. With sigmoid there are K
    channels, background is the absence of all, and there is one loss per value; negative labels are ignored.
    Either takes soft targets shaped like ``pred`` as well; with sigmoid, negative values are ignored there.

    For the loss of a mask head (the reference's ``use_mask``), pick the channel of each mask's class and use
    ``use_sigmoid=True`` with the mask as target.

    Args:
        use_sigmoid: Sigmoid rather than softmax.
        class_weight: Factor per channel: of a row, by its label (softmax); of the positive term (sigmoid).
        ignore_index: Label (or value) that takes no part; None for none.
        avg_non_ignore: Whether "mean" divides by what takes part, instead of by all. Either way, neither
            weights nor class weights enter the divisor.
        reduction: How the losses are reduced; see :func:`~detcore_losses.reduce_loss`.
        loss_weight: Factor of the result.
    """

    _class_weight: Tensor | None

    def __init__(
        self,
        *,
        use_sigmoid: bool = False,
        class_weight: tuple[Annotated[float, Field(ge=0)], ...] | None = None,
        ignore_index: int | None = None,
        avg_non_ignore: bool = False,
        reduction: Reduction = "mean",
        loss_weight: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        super().__init__()
        self.use_sigmoid = use_sigmoid
        self.class_weight = class_weight
        self.ignore_index = ignore_index
        self.avg_non_ignore = avg_non_ignore
        self.reduction = reduction
        self.loss_weight = loss_weight
        # Not persistent: it is configuration, not state.
        weights = None if class_weight is None else torch.tensor(class_weight)
        self.register_buffer("_class_weight", weights, persistent=False)

    def channels(self, num_classes: int) -> int:
        """K logits with sigmoid, K + 1 with softmax."""
        return num_classes if self.use_sigmoid else num_classes + 1

    def scores(self, logits: Float[Tensor, "*S C"]) -> Float[Tensor, "*S K"]:
        """Probabilities of the K classes, in float32 at least."""
        return upcast(logits).sigmoid() if self.use_sigmoid else upcast(logits).softmax(-1)[..., :-1]

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
            For reduction "none" [*S] with softmax, [*S, C] with sigmoid; else a scalar.

        Raises:
            ConfigError: Shapes that do not fit, or ``avg_factor`` with reduction "sum".
        """
        reduction = reduction or self.reduction
        check_reduction(avg_factor, reduction, _OWNER)
        pred, weight = upcast(pred), None if weight is None else upcast(weight)
        labels = holds_labels(pred, target, _OWNER)
        used = self._takes_part(target, labels)
        if weight is not None:
            like = pred if self.use_sigmoid else pred[..., 0]
            weight = align_weight(weight, like, _OWNER)
            pred = pred.masked_fill((weight if self.use_sigmoid else weight[..., None]) == 0, 0)
        if self.use_sigmoid:
            loss = self._sigmoid(pred, target, used, labels)
        else:
            loss = self._softmax(pred, target, labels)
        if avg_factor is None and reduction == "mean" and self.avg_non_ignore:
            avg_factor = used.expand_as(loss).sum()
        loss = reduce_loss(loss, weight=weight, avg_factor=avg_factor, reduction=reduction, owner=_OWNER)
        return self.loss_weight * loss

    def _takes_part(self, target: Tensor, labels: bool) -> Tensor:
        """Which rows, or values, are not ignored; broadcasts to the losses."""
        ignored = _NOTHING if self.ignore_index is None else self.ignore_index
        if self.use_sigmoid:
            used = (target >= 0) & (target != ignored)
            return used[..., None] if labels else used
        return target != ignored if labels else target.new_ones(target.shape[:-1], dtype=torch.bool)

    def _softmax(self, pred: Tensor, target: Tensor, labels: bool) -> Tensor:
        rows = pred.flatten(0, -2)
        ignored = _NOTHING if self.ignore_index is None else self.ignore_index
        loss = F.cross_entropy(
            rows,
            target.flatten().long() if labels else target.flatten(0, -2).to(rows.dtype),
            weight=self._weights(pred),
            ignore_index=ignored,
            reduction="none",
        )
        return loss.reshape(pred.shape[:-1])

    def _sigmoid(self, pred: Tensor, target: Tensor, used: Tensor, labels: bool) -> Tensor:
        factors = self._weights(pred)
        if not labels:
            values = torch.where(used, target, 0).to(pred.dtype)
            loss = F.binary_cross_entropy_with_logits(pred, values, pos_weight=factors, reduction="none")
        else:
            # The loss of background everywhere, then the labels' entries: no one-hot tensor.
            entries = LabelEntries.of(target, pred.shape[-1])
            positive = F.softplus(-pred.gather(-1, entries.channel))
            if factors is not None:
                positive = positive * factors[entries.channel]
            loss = entries.write(F.softplus(pred), positive)
        return torch.where(used, loss, 0)

    def _weights(self, pred: Tensor) -> Tensor | None:
        if self._class_weight is None:
            return None
        if len(self._class_weight) != pred.shape[-1]:
            raise ConfigError(
                f"class_weight has {len(self._class_weight)} entries, but pred has {pred.shape[-1]} channels"
                f"{'' if self.use_sigmoid else ' (the classes, then background)'}; give one per channel",
                _OWNER,
            )
        return self._class_weight.to(pred.dtype)
