"""Where the tiles of a large image lie, and which boxes are only parts of what another tile sees better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Span(NamedTuple):
    """A tile's extent along one axis, and those of its neighbours; None where there is no neighbour.

    Args:
        start: First pixel.
        end: The pixel after the last.
        previous_end: Where the tile before ends.
        next_start: Where the tile behind starts.
    """

    start: int
    end: int
    previous_end: int | None
    next_start: int | None


class Tile(NamedTuple):
    """One tile: where it lies in y and in x."""

    y: Span
    x: Span


def spans(length: int, tile: int, overlap: float) -> list[Span]:
    """Extents that cover ``length`` pixels, each within them; the last is moved back where it would stick out.

    Args:
        length: Pixels to cover, at least 1.
        tile: Pixels of each extent, or all there are where these are fewer.
        overlap: Least share of an extent, below 1, that it has in common with the next.
    """
    if length <= tile:
        return [Span(0, length, None, None)]
    step = max(1, tile - math.ceil(overlap * tile - 1e-6))
    starts = [*range(0, length - tile, step), length - tile]
    before = [None, *(start + tile for start in starts[:-1])]
    behind = [*starts[1:], None]
    return [Span(s, s + tile, b, n) for s, b, n in zip(starts, before, behind, strict=True)]


def tiles_of(size: tuple[int, int], tile: tuple[int, int], overlap: float) -> list[Tile]:
    """Tiles (h, w) that cover an image of (h, w), row by row."""
    columns = spans(size[1], tile[1], overlap)
    return [Tile(row, column) for row in spans(size[0], tile[0], overlap) for column in columns]


def cut_off(boxes: Float[Tensor, "n Q 4"], tiles: Sequence[Tile], border: float) -> Bool[Tensor, "n Q"]:
    """Boxes that end at a border behind which the image goes on, and that the neighbour sees at least as well.

    Such a box may be a part of an object. Where it begins inside of the neighbouring tile, which sees beyond
    the border, it adds nothing. Where the object is larger than what the tiles have in common, no tile sees all
    of it, and its parts are kept.

    Args:
        boxes: xyxy in pixels of the image, by tile.
        tiles: The n tiles.
        border: How near to the border a box counts as ending there, in pixels.
    """
    result = torch.zeros(boxes.shape[:-1], dtype=torch.bool, device=boxes.device)
    for axis, extents in ((0, [tile.x for tile in tiles]), (1, [tile.y for tile in tiles])):
        low, high = boxes[..., axis], boxes[..., axis + 2]
        start, end = _column(boxes, [e.start for e in extents]), _column(boxes, [e.end for e in extents])
        # beyond every box where there is no neighbour, so that nothing is inside of it
        previous_end = _column(boxes, [-1e9 if e.previous_end is None else e.previous_end for e in extents])
        next_start = _column(boxes, [1e9 if e.next_start is None else e.next_start for e in extents])
        result |= (low <= start + border) & (high < previous_end - border)
        result |= (high >= end - border) & (low > next_start + border)
    return result


def ends_at_a_border(
    boxes: Float[Tensor, "n Q 4"], tiles: Sequence[Tile], border: float
) -> Bool[Tensor, "n Q"]:
    """Boxes that end at a border behind which the image goes on; arguments as for :func:`cut_off`."""
    result = torch.zeros(boxes.shape[:-1], dtype=torch.bool, device=boxes.device)
    for axis, extents in ((0, [tile.x for tile in tiles]), (1, [tile.y for tile in tiles])):
        first = _column(boxes, [-1e9 if e.previous_end is None else e.start for e in extents])
        last = _column(boxes, [1e9 if e.next_start is None else e.end for e in extents])
        result |= (boxes[..., axis] <= first + border) | (boxes[..., axis + 2] >= last - border)
    return result


def _column(like: Tensor, values: Sequence[float | int]) -> Float[Tensor, "n 1"]:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]
