"""Modulated deformable convolution."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from detcore.component import wired
from detcore.interfaces import Block
from detcore_blocks.deformable import check_groups, convolve, kernel_parameters, offset_convolution
from detcore_blocks.sizes import OddSize

PositiveInt = Annotated[int, Field(ge=1)]


class DCNv2(Block):
    """A deformable convolution that also weighs what each kernel element sees, by a factor in (0, 1).

    The offsets are zero at first, so that it begins as a common convolution with half of the weights.

    Source: Zhu et al., Deformable ConvNets v2 (arXiv:1811.11168).

    Shapes: [B, in_channels, H, W] to [B, out_channels, ceil(H / stride), ceil(W / stride)].

    Args:
        in_channels: C; supplied by the owner.
        out_channels: D; C where None. Supplied by an owner that replaces a convolution.
        kernel_size: Side of the square kernel, in cells; odd.
        stride: In cells; supplied by an owner that replaces a convolution.
        dilation: Distance of neighbouring kernel elements before they move, in cells; likewise.
        groups: Groups of the convolution.
        deform_groups: Groups of channels that move together.
        bias: Whether there is a bias.

    Raises:
        ValueError: ``groups`` or ``deform_groups`` does not divide the channels.
    """

    def __init__(
        self,
        *,
        in_channels: PositiveInt = wired(),
        out_channels: PositiveInt | None = wired(None),
        kernel_size: OddSize = 3,
        stride: PositiveInt = wired(1),
        dilation: PositiveInt = wired(1),
        groups: PositiveInt = wired(1),
        deform_groups: PositiveInt = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.out_channels, self.stride, self.dilation = out_channels or in_channels, stride, dilation
        check_groups(in_channels, self.out_channels, groups, deform_groups)
        self.weight, self.bias = kernel_parameters(in_channels, self.out_channels, kernel_size, groups, bias)
        channels = 3 * deform_groups * kernel_size**2
        self.conv_offset = offset_convolution(in_channels, channels, kernel_size, stride, dilation)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """The convolved feature map."""
        rows, columns, factor = self.conv_offset(x).chunk(3, dim=1)
        offset = torch.cat((rows, columns), dim=1)
        mask = factor.sigmoid()
        return convolve(x, offset, self.weight, self.bias, self.stride, self.dilation, mask)
