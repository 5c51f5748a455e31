"""The interface of backbones."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from detcore.component import Component
from detcore.structures import FeatureSpec


class Backbone(Component, nn.Module):
    """Images to a pyramid of features.

    Invariants: level i of the output has ``out_features[i].channels`` channels and height
    ``ceil(H / out_features[i].stride)`` (width likewise); strides do not decrease.
    """

    kind: ClassVar[str] = "backbones"

    #: Channels and strides of the output, known once constructed.
    out_features: tuple[FeatureSpec, ...]

    @abstractmethod
    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> tuple[Tensor, ...]:
        """One feature map [B, C_i, H_i, W_i] per level."""
