"""Spatial pyramid pooling."""

from __future__ import annotations

import functools
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from detcore.component import wired
from detcore.interfaces import Block
from detcore.layers import NormName
from detcore_blocks.parts import ActivationName, Conv, reduced
from detcore_blocks.sizes import OddSize


class SPP(Block):
    """The features, and their maxima in squares of several sizes around each cell, between two 1x1 convolutions.

    Sources: He et al., Spatial Pyramid Pooling (arXiv:1406.4729); in this form, which keeps the size, YOLOv3-SPP
    and YOLOX (arXiv:2107.08430), whose settings are the defaults.

    Shapes: [B, C, H, W] to [B, D, H, W].

    Args:
        in_channels: C; supplied by the owner.
        out_channels: D; C where None.
        kernel_sizes: Sides of the squares, in cells; odd.
        ratio: Channels between the convolutions, relative to C.
        norm: Normalisation after the convolutions, or None.
        num_groups: Groups of a "GN".
        norm_eps: Added to the variance in the normalisation.
        activation: Activation after the convolutions.

    Raises:
        ValueError: ``ratio`` leaves no channel, or ``num_groups`` does not divide channels.
    """

    def __init__(
        self,
        *,
        in_channels: Annotated[int, Field(ge=1)] = wired(),
        out_channels: Annotated[int, Field(ge=1)] | None = wired(None),
        kernel_sizes: Annotated[tuple[OddSize, ...], Field(min_length=1)] = (5, 9, 13),
        ratio: Annotated[float, Field(gt=0, le=1)] = 0.5,
        norm: NormName | None = "BN",
        num_groups: Annotated[int, Field(ge=1)] = 32,
        norm_eps: Annotated[float, Field(ge=0)] = 1e-3,
        activation: ActivationName = "SiLU",
    ) -> None:
        super().__init__()
        self.out_channels = out_channels or in_channels
        inner = reduced(in_channels, ratio, f"ratio={ratio}")
        conv = functools.partial(
            Conv, norm=norm, num_groups=num_groups, norm_eps=norm_eps, activation=activation
        )
        self.conv1 = conv(in_channels, inner)
        self.poolings = nn.ModuleList(nn.MaxPool2d(side, 1, side // 2) for side in kernel_sizes)
        self.conv2 = conv(inner * (len(kernel_sizes) + 1), self.out_channels)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
        """The features that have seen squares around them."""
        x = self.conv1(x)
        return self.conv2(torch.cat([x, *(pool(x) for pool in self.poolings)], dim=1))  # type: ignore[no-any-return]
