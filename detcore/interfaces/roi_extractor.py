"""The interface of extractors of region features."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from detcore.component import Component


class RoIExtractor(Component, nn.Module):
    """Features of regions, resampled to one size, out of a pyramid.

    An extractor declares ``in_features: tuple[FeatureSpec, ...] = wired()``.

    Invariants: a region's features depend on its own image and box only; no region gives an empty result that
    is connected to the pyramid; a box without extent gives finite values.
    """

    kind: ClassVar[str] = "roi_extractors"

    #: Channels C of the result.
    out_channels: int
    #: (h, w) of the result, in cells.
    output_size: tuple[int, int]

    @abstractmethod
    def forward(
        self, features: tuple[Tensor, ...], boxes: Float[Tensor, "P 4"], image: Int[Tensor, "P"]
    ) -> Float[Tensor, "P C h w"]:
        """The features of P regions of the batch.

        Args:
            features: The whole pyramid, one map [B, C_i, H_i, W_i] per level of ``in_features``.
            boxes: xyxy in pixels of the batch.
            image: The image of each.
        """
