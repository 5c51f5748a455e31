"""The interface of networks between the extraction of region features and the heads."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from detcore.component import Component


class SharedHead(Component, nn.Module):
    """A network on region features that all heads share: the last stage of a ResNet in C4 models.

    A shared head declares ``in_channels: int = wired()`` and ``roi_feat_size: RoISize = wired()``.
    """

    kind: ClassVar[str] = "shared_heads"

    #: Channels D of the result.
    out_channels: int
    #: (h, w) of the result, in cells.
    output_size: tuple[int, int]

    @abstractmethod
    def forward(self, features: Float[Tensor, "P C h w"]) -> Float[Tensor, "P D g v"]:
        """The features that the heads see."""
