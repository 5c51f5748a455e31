"""What the losses on logits share: labels or soft targets, and writing to the entries of the labels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detcore.errors import ConfigError
from detcore_losses.reduction import upcast


class LabelEntries(NamedTuple):
    """Where labels [*S] stand in logits [*S, C].

    Args:
        channel: The label, 0 where there is none.
        positive: Whether the label is one of the C channels; background is not.
    """

    channel: Int[Tensor, "*S 1"]
    positive: Bool[Tensor, "*S 1"]

    @classmethod
    def of(cls, labels: Int[Tensor, "*S"], channels: int) -> LabelEntries:
        """The entries of ``labels`` among ``channels`` logits."""
        labels = labels[..., None]
        positive = (labels >= 0) & (labels < channels)
        return cls(torch.where(positive, labels, 0).long(), positive)

    def write(self, background: Tensor, values: Tensor) -> Tensor:
        """``background`` [*S, C] with ``values`` [*S, 1] in place of the entries of positive labels."""
        return background.scatter(-1, self.channel, self._chosen(background, values))

    def write_(self, background: Tensor, values: Tensor) -> Tensor:
        """:meth:`write` in place."""
        return background.scatter_(-1, self.channel, self._chosen(background, values))

    def _chosen(self, background: Tensor, values: Tensor) -> Tensor:
        return torch.where(self.positive, values.to(background.dtype), background.gather(-1, self.channel))


def holds_labels(pred: Tensor, target: Tensor, owner: str) -> bool:
    """Whether ``target`` holds a label per row; False means a value per logit.

    Raises:
        ConfigError: It is neither, or labels are no integers.
    """
    if target.shape == pred.shape:
        return False
    if target.shape != pred.shape[:-1]:
        raise ConfigError(
            f"target should hold labels {list(pred.shape[:-1])} or values {list(pred.shape)}, "
            f"as pred has shape {list(pred.shape)}; got {list(target.shape)}",
            owner,
        )
    if target.is_floating_point() or target.dtype == torch.bool:
        raise ConfigError(f"labels should be integers, got {target.dtype}", owner)
    return True


def one_hot(
    labels: Int[Tensor, "*S"], pred: Tensor, values: Float[Tensor, "*S"] | None = None
) -> Float[Tensor, "*S C"]:
    """Targets shaped like ``pred``: at each label 1, or its value; 0 elsewhere and for background."""
    entries = LabelEntries.of(labels, pred.shape[-1])
    zeros = torch.zeros_like(pred, dtype=torch.float32 if values is None else values.dtype)
    filled = torch.ones_like(zeros[..., :1]) if values is None else values.detach()[..., None]
    return entries.write(zeros, filled)


def combine(weight: Tensor | None, used: Bool[Tensor, "*S 1"] | None, like: Tensor) -> Tensor | None:
    """Weights that are 0 also where rows are not ``used``; of a dtype in which losses of ``like`` are computed."""
    if used is None:
        return weight
    dtype = upcast(like[:0]).dtype
    return used.to(dtype) if weight is None else used * weight


def check_rows(values: Tensor | None, labels: Tensor, name: str, owner: str) -> None:
    """Refuses ``values`` that are not one per label.

    Raises:
        ConfigError: Another shape.
    """
    if values is not None and values.shape != labels.shape:
        raise ConfigError(
            f"{name} should have one value per label {list(labels.shape)}, got {list(values.shape)}", owner
        )
