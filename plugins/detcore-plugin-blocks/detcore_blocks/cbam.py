"""The convolutional block attention module."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from detcore.component import wired
from detcore.interfaces import Block
from detcore_blocks.parts import Conv, reduced
from detcore_blocks.sizes import OddSize


class CBAM(Block):
    """A factor for each channel, from means and maxima over the cells; then one for each cell, over the channels.

    Source: Woo et al., CBAM: Convolutional Block Attention Module (arXiv:1807.06521).

    Shapes: [B, C, H, W] to the same.

    Args:
        in_channels: C; supplied by the owner.
        ratio: C by the channels of the bottleneck that means and maxima share.
        kernel_size: Side of the kernel that weighs cells, in cells; odd.

    Raises:
        ValueError: ``ratio`` leaves no channel.
    """

    def __init__(
        self,
        *,
        in_channels: Annotated[int, Field(ge=1)] = wired(),
        ratio: Annotated[int, Field(ge=1)] = 16,
        kernel_size: OddSize = 7,
    ) -> None:
        super().__init__()
        self.out_channels = in_channels
        inner = reduced(in_channels, 1 / ratio, f"ratio={ratio}")
        self.channel = nn.Sequential(
            Conv(in_channels, inner, activation="ReLU", bias=False), Conv(inner, in_channels, bias=False)
        )
        self.spatial = Conv(2, 1, kernel_size, bias=False)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """The weighed features."""
        mean, largest = x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
        x = x * (self.channel(mean) + self.channel(largest)).sigmoid()
        over_channels = torch.cat((x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)), dim=1)
        return x * self.spatial(over_channels).sigmoid()  # type: ignore[no-any-return]
