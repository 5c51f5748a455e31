"""Batch normalisation folded into the convolutions before it, for networks that are not trained any more.

In evaluation mode batch normalisation is an affine map per channel, so the convolution before it can do it with other
weights: ``norm(conv(x)) = gamma / sqrt(var + eps) * (conv(x) - mean) + beta``. The results differ by rounding only.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from detcore.layers import is_batch_norm


@runtime_checkable
class Foldable(Protocol):
    """A module that says which of its normalisations may be folded."""

    def foldable(self) -> Iterable[tuple[str, str]]:
        """Names of children: a convolution, and the normalisation that alone sees its output, and sees nothing else.

        Children that are of other kinds, or None, are allowed; they are left as they are.
        """


def fold_norms(network: nn.Module) -> int:
    """Folds, in place, all batch normalisation that modules declare (:class:`Foldable`) or that follows in a sequence.

    An ``nn.Identity`` stays in its place.

    Args:
        network: In evaluation mode.

    Returns:
        The number of normalisations that are gone.

    Raises:
        ValueError: The network is in training mode: its statistics change yet.
    """
    if network.training:
        raise ValueError("fold_norms needs a network in evaluation mode; call eval() first")
    count = 0
    for owner in list(network.modules()):
        for conv_name, norm_name in _pairs(owner):
            conv, norm = getattr(owner, conv_name, None), getattr(owner, norm_name, None)
            if _fits(conv, norm):
                setattr(owner, conv_name, fuse_conv_bn_eval(conv, norm))  # type: ignore[type-var,arg-type]
                setattr(owner, norm_name, nn.Identity())
                count += 1
    return count


def _pairs(owner: nn.Module) -> Iterator[tuple[str, str]]:
    if type(owner) is nn.Sequential:
        names = [name for name, _ in owner.named_children()]
        yield from itertools.pairwise(names)
    elif isinstance(owner, Foldable):
        yield from owner.foldable()


def _fits(conv: object, norm: object) -> bool:
    """Whether both are what folding is defined for, and nobody listens to what goes through them."""
    if type(conv) is not nn.Conv2d or not isinstance(norm, nn.Module) or not is_batch_norm(norm):
        return False
    listened = any(m._forward_hooks or m._forward_pre_hooks for m in (conv, norm))
    constant = not norm.training and norm.running_mean is not None
    return bool(constant and not listened and norm.num_features == conv.out_channels)
