"""Fully connected layers on processors where the BLAS that torch is built with is slow.

The x86 builds of torch call MKL for products of matrices in float32, which reaches a third of the peak on processors
that are not Intel's; oneDNN's convolutions, which reach four fifths on either, compute the same as 1x1 convolutions.
Results differ by rounding only.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

#: Rows and numbers per row below which the way there costs as much as it saves.
_WORTH = 256


def linear(layer: nn.Linear, x: Float[Tensor, "P I"]) -> Float[Tensor, "P O"]:
    """``layer(x)``, by the faster way.

    Args:
        layer: The fully connected layer.
        x: Rows.
    """
    if not _by_convolution(layer, x):
        return layer(x)  # type: ignore[no-any-return]
    if torch.is_grad_enabled() and (x.requires_grad or layer.weight.requires_grad):
        y: Tensor = _Product.apply(x, layer.weight)
        return y if layer.bias is None else y + layer.bias
    return _product(x, layer.weight, layer.bias)


def _by_convolution(layer: nn.Linear, x: Tensor) -> bool:
    if (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch.is_autocast_enabled("cpu")
    ):
        return False
    if type(layer) is not nn.Linear or layer._forward_hooks or layer._forward_pre_hooks:
        return False
    plain = x.dim() == 2 and x.device.type == "cpu" and x.dtype == layer.weight.dtype == torch.float32
    # with one thread torch computes 1x1 convolutions by the same BLAS
    large = plain and min(*x.shape, layer.out_features) >= _WORTH and torch.get_num_threads() > 1
    return large and torch._C._has_mkldnn and slow_blas()


@functools.cache
def slow_blas(description: str = "/proc/cpuinfo") -> bool:
    """Whether torch has MKL and the processor is AMD's, as Linux describes it."""
    try:
        text = Path(description).read_text(encoding="utf-8")
    except OSError:
        return False
    return torch._C.has_mkl and "AuthenticAMD" in text


def _product(a: Float[Tensor, "n k"], b: Float[Tensor, "m k"], bias: Tensor | None = None) -> Tensor:
    """``a @ b.T + bias``: the rows of ``a`` are the cells of one image with k channels, which come last in memory."""
    image = a.contiguous()[None, None].permute(0, 3, 1, 2)
    return F.conv2d(image, b.contiguous()[:, :, None, None], bias).permute(0, 2, 3, 1)[0, 0]


class _Product(torch.autograd.Function):
    """The product with a gradient by the same way; that of a convolution is slower than the BLAS."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """``x @ weight.T``."""
        ctx.save_for_backward(x, weight)
        return _product(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Of both factors."""
        x, weight = ctx.saved_tensors
        to_x, to_weight = ctx.needs_input_grad
        return (
            _product(grad, weight.t()) if to_x else None,
            _product(grad.t(), x.t()) if to_weight else None,
        )
