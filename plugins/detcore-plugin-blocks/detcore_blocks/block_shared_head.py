"""Blocks on the features of regions."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from detcore.component import Spec, wired
from detcore.interfaces import Block, SharedHead
from detcore.interfaces.bbox_head import RoISize
from detcore_blocks.block_neck import chain_of, out_channels


class BlockSharedHead(SharedHead):
    """Blocks on the features of each region, before the box and mask heads.

    Shapes: [P, in_channels, h, w] to [P, out_channels, h, w].

    Args:
        in_channels: Channels of the region features; supplied by the RoI head.
        roi_feat_size: (h, w) of the region features, in cells; supplied by the RoI head.
        blocks: Recipes, in the order in which they are applied.

    Raises:
        ValueError: A block has a stride.
    """

    def __init__(
        self,
        *,
        in_channels: Annotated[int, Field(ge=1)] = wired(),
        roi_feat_size: RoISize = wired(),
        blocks: Annotated[tuple[Spec[Block], ...], Field(min_length=1)],
    ) -> None:
        super().__init__()
        self.chain = chain_of(blocks, in_channels)
        self.out_channels, self.output_size = out_channels(self.chain, in_channels), roi_feat_size

    def forward(self, features: Float[Tensor, "P C h w"]) -> Float[Tensor, "P D h w"]:
        """The features that the heads see."""
        return self.chain(features)  # type: ignore[no-any-return]
