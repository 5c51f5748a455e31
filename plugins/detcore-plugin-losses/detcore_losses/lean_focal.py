"""The focal loss of logits against labels, in little memory.

Autograd would keep four tensors of the size of the logits, half a gigabyte for a RetinaNet on two images.
Here rows are worked through in pieces and the backward pass works anew from the logits. With s = sigmoid(x)
and f(x) = s^gamma softplus(x), f'(x) = s^gamma (gamma (1 - s) softplus(x) + s).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from detcore_losses.labels import LabelEntries

#: Logits worked through at a time: within a processor's cache, and for a GPU as many as keep it busy.
CHUNK_CPU, CHUNK_GPU = 1 << 17, 1 << 24


def lean_focal(
    logits: Float[Tensor, "*S C"],
    labels: Int[Tensor, "*S"],
    weight: Tensor | None,
    gamma: float,
    alpha: float,
    summed: bool,
) -> Tensor:
    """The weighted loss per logit [*S, C], or its sum, in float32 for logits of half precision.

    Args:
        logits: Class logits; rows with weight 0 or a negative label do not matter, whatever they hold.
        labels: 0..C-1, or C for background.
        weight: Broadcasts to ``logits`` with all dimensions there; gets no gradient.
        gamma: Exponent of the scaling.
        alpha: Weight of positives.
        summed: Whether to return the sum.
    """
    rows = logits.reshape(-1, logits.shape[-1])
    if weight is not None:
        weight = weight.expand(*logits.shape[:-1], weight.shape[-1]).reshape(-1, weight.shape[-1])
    loss: Tensor = _LeanFocal.apply(rows, labels.reshape(-1), weight, gamma, alpha, summed)
    return loss if summed else loss.reshape(logits.shape)


class _LeanFocal(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None,
        gamma: float,
        alpha: float,
        summed: bool,
    ) -> Tensor:
        ctx.save_for_backward(logits, labels, weight)
        ctx.gamma, ctx.alpha, ctx.summed = gamma, alpha, summed
        dtype = _dtype(logits)
        loss = None if summed else torch.empty_like(logits, dtype=dtype)
        sums = []
        for piece, x, entries, scale in _pieces(logits, labels, weight):
            positive = alpha * _term(-x.gather(1, entries.channel), gamma)
            values = entries.write_(_term(x, gamma).mul_(1 - alpha), positive).mul_(scale)
            if loss is None:
                sums.append(values.sum())
            else:
                loss[piece] = values
        if loss is not None:
            return loss
        return torch.stack(sums).sum() if sums else logits.new_zeros((), dtype=dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, labels, weight = ctx.saved_tensors
        result = torch.empty_like(logits)
        for piece, x, entries, scale in _pieces(logits, labels, weight):
            positive = -ctx.alpha * _slope(-x.gather(1, entries.channel), ctx.gamma)
            slopes = entries.write_(_slope(x, ctx.gamma).mul_(1 - ctx.alpha), positive).mul_(scale)
            result[piece] = slopes.mul_(grad if ctx.summed else grad[piece])
        return result, None, None, None, None, None


def _dtype(logits: Tensor) -> torch.dtype:
    return torch.float32 if logits.dtype in (torch.float16, torch.bfloat16) else logits.dtype


def _pieces(
    logits: Tensor, labels: Tensor, weight: Tensor | None
) -> Iterator[tuple[slice, Tensor, LabelEntries, Tensor]]:
    """Per piece its rows, logits (0 where they do not matter), label entries and weights."""
    count, channels = logits.shape
    step = max(1, (CHUNK_CPU if logits.device.type == "cpu" else CHUNK_GPU) // max(channels, 1))
    for start in range(0, count, step):
        piece = slice(start, min(start + step, count))
        own = labels[piece]
        matters = (own >= 0)[:, None]
        scale = matters.to(_dtype(logits))
        if weight is not None:
            matters = matters & (weight[piece] != 0)
            scale = scale * weight[piece].to(scale.dtype)
        x = logits[piece].to(scale.dtype).masked_fill(~matters, 0)
        yield piece, x, LabelEntries.of(own, channels), scale


def _term(x: Tensor, gamma: float) -> Tensor:
    """f(x)."""
    return torch.sigmoid(x).pow_(gamma).mul_(F.softplus(x))


def _slope(x: Tensor, gamma: float) -> Tensor:
    """f'(x)."""
    s = torch.sigmoid(x)
    inner = (1 - s).mul_(F.softplus(x)).mul_(gamma).add_(s)
    return s.pow_(gamma).mul_(inner)
