"""The context block of GCNet."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from detcore.component import wired
from detcore.interfaces import Block
from detcore_blocks.parts import reduced

Fusion = Literal["channel_add", "channel_mul"]


class ContextBlock(Block):
    """One context vector for the whole feature map, transformed by a bottleneck and fused into every cell.

    With "channel_add" alone (the paper's choice) it begins as the identity.

    Source: Cao et al., GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond (arXiv:1904.11492).

    Shapes: [B, C, H, W] to the same.

    Args:
        in_channels: C; supplied by the owner.
        ratio: Channels of the bottleneck, relative to C.
        pooling_type: How cells make up the context: weighted by attention ("att"), or all alike ("avg").
        fusion_types: What is done with it: added to the features, their factor (through a sigmoid), or both.

    Raises:
        ValueError: ``ratio`` leaves no channel, or there is no way of fusion, or one twice.
    """

    def __init__(
        self,
        *,
        in_channels: Annotated[int, Field(ge=1)] = wired(),
        ratio: Annotated[float, Field(gt=0, le=1)] = 1 / 16,
        pooling_type: Literal["att", "avg"] = "att",
        fusion_types: tuple[Fusion, ...] = ("channel_add",),
    ) -> None:
        super().__init__()
        if not fusion_types or len(set(fusion_types)) < len(fusion_types):
            raise ValueError(f"fusion_types={fusion_types} should be 'channel_add', 'channel_mul', or both")
        self.out_channels = in_channels
        inner = reduced(in_channels, ratio, f"ratio={ratio}")
        self.conv_mask = nn.Conv2d(in_channels, 1, 1) if pooling_type == "att" else None
        if self.conv_mask is not None:
            nn.init.kaiming_normal_(self.conv_mask.weight, mode="fan_in", nonlinearity="relu")
        self.channel_add_conv = _bottleneck(in_channels, inner) if "channel_add" in fusion_types else None
        self.channel_mul_conv = _bottleneck(in_channels, inner) if "channel_mul" in fusion_types else None

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """The features with their context."""
        context = self._context(x)
        out = x
        if self.channel_mul_conv is not None:
            out = out * self.channel_mul_conv(context).sigmoid()
        if self.channel_add_conv is not None:
            out = out + self.channel_add_conv(context)
        return out

    def _context(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C 1 1"]:
        if self.conv_mask is None:
            return x.mean(dim=(2, 3), keepdim=True)
        weights = self.conv_mask(x).flatten(2).softmax(-1)  # [B, 1, HW]
        context = torch.matmul(x.flatten(2), weights.transpose(1, 2))  # [B, C, 1]
        return context[..., None]


def _bottleneck(channels: int, inner: int) -> nn.Sequential:
    """The transform of the context; zero at first."""
    last = nn.Conv2d(inner, channels, 1)
    nn.init.zeros_(last.weight)
    if last.bias is not None:
        nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Conv2d(channels, inner, 1), nn.LayerNorm([inner, 1, 1]), nn.ReLU(), last)
