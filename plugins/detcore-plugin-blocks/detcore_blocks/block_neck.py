"""Blocks on the levels of a pyramid."""

from __future__ import annotations

from typing import Annotated, cast

from pydantic import Field
from torch import Tensor, nn

from detcore.component import Part, Spec, make, wired
from detcore.interfaces import Block, Neck
from detcore.structures import FeatureSpec


class BlockNeck(Neck):
    """Blocks on each level of a pyramid, after another neck where one is given: before a head, that is.

    Every level has blocks of its own.

    Args:
        in_features: Channels and strides of the pyramid; supplied by the detector.
        neck: What comes first, or None.
        blocks: Recipes, in the order in which they are applied.
        levels: Which levels get them (0-based, after ``neck``); all where None.

    Raises:
        ValueError: There is no such level, or a block has a stride.
    """

    def __init__(
        self,
        *,
        in_features: tuple[FeatureSpec, ...] = wired(),
        neck: Part[Neck] | None = None,
        blocks: Annotated[tuple[Spec[Block], ...], Field(min_length=1)],
        levels: tuple[Annotated[int, Field(ge=0)], ...] | None = None,
    ) -> None:
        super().__init__()
        self.neck = make(neck, in_features=in_features)
        features = in_features if self.neck is None else self.neck.out_features
        chosen = range(len(features)) if levels is None else levels
        beyond = [level for level in chosen if level >= len(features)]
        if beyond:
            raise ValueError(f"levels={levels}: there are {len(features)} of them, counted from 0")
        chains, specs = [], []
        for level, feature in enumerate(features):
            chain = chain_of(blocks if level in chosen else (), feature.channels)
            chains.append(chain)
            specs.append(FeatureSpec(out_channels(chain, feature.channels), feature.stride))
        self.chains = nn.ModuleList(chains)
        self.out_features = tuple(specs)

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The pyramid after the blocks."""
        if self.neck is not None:
            features = self.neck(features)
        return tuple(chain(x) for chain, x in zip(self.chains, features, strict=True))


def chain_of(blocks: tuple[Spec[Block], ...], channels: int) -> nn.Sequential:
    """The blocks in a row, each built for what the one before gives.

    Args:
        blocks: Recipes.
        channels: Channels of the input.

    Raises:
        ValueError: One has a stride.
    """
    chain = nn.Sequential()
    for spec in blocks:
        block: Block = make(cast("Part[Block]", spec), in_channels=channels)
        if isinstance(block, Block):  # else it failed, and its owner will say so
            if block.stride != 1:
                raise ValueError(
                    f"blocks: {spec.type.__name__} has stride {block.stride}; the size has to stay"
                )
            channels = block.out_channels
            chain.append(block)
    return chain


def out_channels(chain: nn.Sequential, channels: int) -> int:
    """Channels after the blocks.

    Args:
        chain: From :func:`chain_of`.
        channels: Channels of the input.
    """
    *_, last = (channels, *(block.out_channels for block in chain if isinstance(block, Block)))
    return last
