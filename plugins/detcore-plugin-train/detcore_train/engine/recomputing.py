"""Activations of a backbone that are computed a second time rather than kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from detcore.errors import ConfigError


@contextmanager
def recomputing(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Inside, the backward pass computes the inside of each layer of the backbone anew (Chen et al., arXiv:1604.06174).

    Only what goes into a layer is kept by the forward pass. Losses, gradients and random numbers are the same, and
    buffers are written once: normalisation layers take each batch into their statistics in the first computation
    alone. A layer may not compute with a buffer that it has just changed.

    Args:
        model: A detector; its ``backbone`` tells the layers.
        wanted: Whether to do so at all.

    Raises:
        ConfigError: It has no backbone with layers that consist of more than one module.
    """
    layers = _layers(model) if wanted else []
    for layer in layers:
        layer.forward = partial(_forward, layer, layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _layers(model: nn.Module) -> list[nn.Module]:
    backbone = getattr(model, "backbone", None)
    ask = getattr(backbone, "depth_layers", None)
    names = [name for layer in ask() if len(layer) == 1 for name in layer] if ask is not None else []
    own = dict(backbone.named_modules()) if isinstance(backbone, nn.Module) else {}
    found = [own[name] for name in names if name in own and any(True for _ in own[name].children())]
    if not found:
        raise ConfigError(
            f"checkpoint_gradients has no layer to work on: {type(model).__name__} has no backbone whose "
            "depth_layers() are modules made of several; set it to false"
        )
    return found


def _forward(layer: nn.Module, forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **named)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=partial(_contexts, layer), **named)


def _contexts(layer: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """For the first computation and for the second."""
    return nullcontext(), _buffers_at_rest(layer)


@contextmanager
def _buffers_at_rest(layer: nn.Module) -> Iterator[None]:
    """Whatever the layer writes into its buffers is forgotten afterwards."""
    own = [(module, name, buffer) for module in layer.modules() for name, buffer in module._buffers.items()]
    for module, name, buffer in own:
        module._buffers[name] = None if buffer is None else buffer.clone()
    try:
        yield
    finally:
        for module, name, buffer in own:
            module._buffers[name] = buffer
