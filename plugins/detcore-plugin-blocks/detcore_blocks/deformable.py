"""What both versions of deformable convolutions share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d


def check_groups(in_channels: int, out_channels: int, groups: int, deform_groups: int) -> None:
    """Checks that the groups divide the channels.

    Raises:
        ValueError: They do not.
    """
    for name, count in (("groups", groups), ("deform_groups", deform_groups)):
        if in_channels % count:
            raise ValueError(f"{name}={count} does not divide in_channels={in_channels}; use a divisor")
    if out_channels % groups:
        raise ValueError(f"groups={groups} does not divide out_channels={out_channels}; use a divisor")


def kernel_parameters(
    in_channels: int, out_channels: int, kernel_size: int, groups: int, bias: bool
) -> tuple[nn.Parameter, nn.Parameter | None]:
    """Weight [D, C / groups, k, k], uniform with the variance of a linear layer, and bias [D] of zeros, or None."""
    bound = 1 / math.sqrt(in_channels * kernel_size**2)
    weight = torch.empty(out_channels, in_channels // groups, kernel_size, kernel_size).uniform_(
        -bound, bound
    )
    return nn.Parameter(weight), nn.Parameter(torch.zeros(out_channels)) if bias else None


def offset_convolution(
    in_channels: int, channels: int, kernel_size: int, stride: int, dilation: int
) -> nn.Conv2d:
    """Gives the offsets; zeros at first, which makes the convolution a common one."""
    conv = nn.Conv2d(
        in_channels, channels, kernel_size, stride, dilation * (kernel_size // 2), dilation, bias=True
    )
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def convolve(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    dilation: int,
    mask: Tensor | None = None,
) -> Tensor:
    """The deformable convolution, in the type that autocast has chosen for the offsets' convolution."""
    if x.dtype != offset.dtype:
        x = x.to(offset.dtype)
    half = torch.bfloat16, torch.float16
    if x.dtype in half and x.device.type == "cpu":  # the operator has no such kernel there
        bias, mask = (None if t is None else t.float() for t in (bias, mask))
        return _operator(x.float(), offset.float(), weight.float(), bias, mask, stride, dilation).to(x.dtype)
    return _operator(
        x, offset, weight.to(x.dtype), None if bias is None else bias.to(x.dtype), mask, stride, dilation
    )


def _operator(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    stride: int,
    dilation: int,
) -> Tensor:
    padding = dilation * (weight.shape[-1] // 2)
    out: Tensor = deform_conv2d(
        x, offset, weight, bias, stride=stride, padding=padding, dilation=dilation, mask=mask
    )
    return out
