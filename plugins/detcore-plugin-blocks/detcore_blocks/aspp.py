"""Atrous spatial pyramid pooling."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from detcore.component import wired
from detcore.interfaces import Block


class ASPP(Block):
    """Convolutions of several dilations side by side, the last of them on the mean of all cells.

    Sources: Chen et al., Rethinking Atrous Convolution (arXiv:1706.05587); in this form, without normalisation and
    with the dilations of the defaults, DetectoRS (arXiv:2006.02334).

    Shapes: [B, C, H, W] to [B, len(dilations) * branch_channels, H, W].

    Args:
        in_channels: C; supplied by the owner.
        branch_channels: Channels of each convolution; together as many as C where None.
        dilations: Of each convolution, in cells; those of 1 are 1x1, all others 3x3. The last one sees the mean.

    Raises:
        ValueError: There are fewer than two dilations, or the last is not 1, or C cannot be shared equally.
    """

    def __init__(
        self,
        *,
        in_channels: Annotated[int, Field(ge=1)] = wired(),
        branch_channels: Annotated[int, Field(ge=1)] | None = None,
        dilations: tuple[Annotated[int, Field(ge=1)], ...] = (1, 3, 6, 1),
    ) -> None:
        super().__init__()
        if len(dilations) < 2 or dilations[-1] != 1:
            raise ValueError(
                f"dilations={dilations} should be two or more, the last one 1: it sees a single cell, the mean"
            )
        if branch_channels is None and in_channels % len(dilations):
            raise ValueError(
                f"in_channels={in_channels} cannot be shared by {len(dilations)} branches; give branch_channels"
            )
        width = branch_channels or in_channels // len(dilations)
        self.out_channels = width * len(dilations)
        self.aspp = nn.ModuleList(
            nn.Conv2d(in_channels, width, 1 if d == 1 else 3, padding=0 if d == 1 else d, dilation=d)
            for d in dilations
        )
        for conv in self.aspp:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # type: ignore[arg-type]
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
        """What all branches see, one after the other."""
        *near, last = self.aspp
        whole = last(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        return torch.cat([*(conv(x) for conv in near), whole], dim=1).relu()
