"""The receptive field block."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from detcore.component import wired
from detcore.interfaces import Block
from detcore.layers import NormName
from detcore_blocks.parts import Conv, reduced
from detcore_blocks.sizes import OddSize


class RFB(Block):
    """Branches that see ever larger surroundings ever more sparsely, beside a shortcut.

    Each branch is a 1x1 convolution, one with the branch's kernel, and a 3x3 one dilated by that kernel's side;
    a 1x1 convolution joins them.

    Source: Liu et al., Receptive Field Block Net (arXiv:1711.07767), the block at stride 1.

    Shapes: [B, C, H, W] to [B, D, H, W].

    Args:
        in_channels: C; supplied by the owner.
        out_channels: D; C where None.
        kernel_sizes: Side of each branch's kernel, and dilation of the convolution after it, in cells; odd.
        ratio: C by the channels of a branch.
        scale: Factor on the branches, before the shortcut is added.
        norm: Normalisation after each convolution, or None.
        num_groups: Groups of a "GN".

    Raises:
        ValueError: ``ratio`` leaves no channel, or ``num_groups`` does not divide channels.
    """

    def __init__(
        self,
        *,
        in_channels: Annotated[int, Field(ge=1)] = wired(),
        out_channels: Annotated[int, Field(ge=1)] | None = wired(None),
        kernel_sizes: Annotated[tuple[OddSize, ...], Field(min_length=1)] = (1, 3, 5),
        ratio: Annotated[int, Field(ge=1)] = 8,
        scale: Annotated[float, Field(gt=0)] = 0.1,
        norm: NormName | None = "BN",
        num_groups: Annotated[int, Field(ge=1)] = 32,
    ) -> None:
        super().__init__()
        self.out_channels, self.scale = out_channels or in_channels, scale
        inner = reduced(in_channels, 1 / ratio, f"ratio={ratio}")

        def conv(channels: int, width: int, side: int = 1, dilation: int = 1, activated: bool = True) -> Conv:
            return Conv(
                channels, width, side, dilation=dilation, norm=norm, num_groups=num_groups,
                activation="ReLU" if activated else None,
            )  # fmt: skip

        self.branches = nn.ModuleList(
            nn.Sequential(
                conv(in_channels, inner),
                *([conv(inner, inner, side)] if side > 1 else []),
                conv(inner, inner, 3, side, activated=False),
            )
            for side in kernel_sizes
        )
        self.join = conv(inner * len(kernel_sizes), self.out_channels, activated=False)
        self.shortcut = conv(in_channels, self.out_channels, activated=False)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
        """The features that have seen their surroundings."""
        joined = self.join(torch.cat([branch(x) for branch in self.branches], dim=1))
        return F.relu(joined * self.scale + self.shortcut(x))
