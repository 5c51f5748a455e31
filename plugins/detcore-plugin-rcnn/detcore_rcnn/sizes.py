"""Checks of what extractors are given."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from detcore.structures import FeatureSpec

#: A length in cells.
Cells = Annotated[int, Field(ge=1)]


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """(h, w); one number stands for both."""
    return (size, size) if isinstance(size, int) else size


def used_levels(
    in_features: tuple[FeatureSpec, ...], num_levels: int | None
) -> tuple[tuple[FeatureSpec, ...], int]:
    """The finest levels of a pyramid, and the number of channels that they share.

    Raises:
        ValueError: There are fewer, or they differ in channels.
    """
    if num_levels is not None and num_levels > len(in_features):
        raise ValueError(
            f"num_levels={num_levels}, but the pyramid has {len(in_features)}; lower it, or use None for all"
        )
    used = in_features[:num_levels]
    channels = {level.channels for level in used}
    if len(channels) != 1:
        raise ValueError(
            "regions are read from levels of the same number of channels; got "
            f"{[level.channels for level in used]}; put a neck such as FPN before it"
        )
    return used, channels.pop()
