"""Squeeze and excitation."""

from __future__ import annotations

from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from detcore.component import wired
from detcore.interfaces import Block
from detcore_blocks.parts import Conv, reduced


class SELayer(Block):
    """A factor for each channel, from the means of all channels.

    Source: Hu et al., Squeeze-and-Excitation Networks (arXiv:1709.01507); ``gate="HardSigmoid"`` is that of
    MobileNetV3 (arXiv:1905.02244).

    Shapes: [B, C, H, W] to the same.

    Args:
        in_channels: C; supplied by the owner.
        ratio: C by the channels of the bottleneck.
        gate: What makes factors between 0 and 1.

    Raises:
        ValueError: ``ratio`` leaves no channel.
    """

    def __init__(
        self,
        *,
        in_channels: Annotated[int, Field(ge=1)] = wired(),
        ratio: Annotated[int, Field(ge=1)] = 16,
        gate: Literal["Sigmoid", "HardSigmoid"] = "Sigmoid",
    ) -> None:
        super().__init__()
        self.out_channels = in_channels
        inner = reduced(in_channels, 1 / ratio, f"ratio={ratio}")
        self.conv1 = Conv(in_channels, inner, activation="ReLU")
        self.conv2 = Conv(inner, in_channels, activation=gate)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """The features, each channel by its factor."""
        factors: Tensor = self.conv2(self.conv1(x.mean(dim=(2, 3), keepdim=True)))
        return x * factors
