"""Normalisation layers inside of networks: finding them, and keeping what they hold."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from detcore.layers import is_batch_norm


def norms_of(network: nn.Module) -> Iterator[nn.Module]:
    """The layers that normalise by statistics, at any depth."""
    return (
        module for module in network.modules() if is_batch_norm(module) or isinstance(module, nn.GroupNorm)
    )


def keep_statistics(network: nn.Module) -> None:
    """Puts every BN into evaluation mode, in which it uses its running statistics and leaves them as they are."""
    for layer in norms_of(network):
        if is_batch_norm(layer):
            layer.eval()


def freeze_norms(network: nn.Module) -> None:
    """Keeps all scales and offsets of the normalisation as they are."""
    for layer in norms_of(network):
        layer.requires_grad_(False)
