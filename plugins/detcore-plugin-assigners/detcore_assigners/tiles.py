"""The search over a grid: a ground truth is compared with the tiles of priors that it can meet, not with all.

Each level is cut into tiles of neighbouring cells. A ground truth outside of a tile's bounding box overlaps
with none of its priors; the overlaps of the rest are computed as ever. So the answers are those of
:class:`~detcore_assigners.overlaps.DenseSearch` to the bit, wherever the priors lie, and on a grid most pairs
are never looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detcore.boxes import area
from detcore.structures import PriorLevel
from detcore_assigners.overlaps import Best, DenseSearch, OverlapSearch, overlap_of_columns, slices

#: Priors in a tile, about: few enough that tiles are small, enough to be worth a comparison of boxes.
TILE = 256


class _Pairs(NamedTuple):
    """Some pairs of a tile and a row that may meet.

    Args:
        tile: Flat index of (image, tile) [k].
        row: Flat index of (image, row) [k].
        iou: Overlap of the row with the priors of the tile [k, S].
    """

    tile: Int[Tensor, "k"]
    row: Int[Tensor, "k"]
    iou: Float[Tensor, "k S"]


class TileSearch:
    """Looks at the tiles of priors that a row's box meets. Waits for the device to know which those are.

    Args:
        rows: [B, M, 4]; without area where they take no part.
        priors: [B, N, 4]; without area where they take no part.
        levels: The grids of the priors.
    """

    def __init__(
        self, rows: Float[Tensor, "B M 4"], priors: Float[Tensor, "B N 4"], levels: tuple[PriorLevel, ...]
    ) -> None:
        self.images, self.num_rows, _ = rows.shape
        self.num_priors = priors.shape[1]
        self.rows = rows
        self._row_columns = torch.cat((rows, area(rows)[..., None]), dim=-1).reshape(-1, 5).T[..., None]
        index = _tiles(levels, priors.device)
        self._index = index.flatten()
        self.num_tiles, self.tile_size = index.shape
        padded = torch.cat((priors, priors.new_zeros(self.images, 1, 4)), dim=1)
        tiles = padded[:, self._index].reshape(self.images, self.num_tiles, self.tile_size, 4)
        columns = torch.cat((tiles, area(tiles)[..., None]), dim=-1)
        self._tile_columns = columns.reshape(-1, self.tile_size, 5).movedim(-1, 0).contiguous()
        self._bounds = _bounds(tiles)

    def best(self) -> Best:
        """See :class:`~detcore_assigners.overlaps.OverlapSearch`."""
        prior_iou = self._tile_columns.new_zeros(self._tile_columns.shape[1:])
        row_iou = prior_iou.new_full((self.images * self.num_rows,), 0.0 if self.num_priors else -1.0)
        for tile, row, iou in self._pairs():
            prior_iou.scatter_reduce_(0, tile[:, None].expand_as(iou), iou, "amax")
            row_iou.scatter_reduce_(0, row, iou.amax(dim=1), "amax")
        first = torch.full_like(prior_iou, self.num_rows)
        for tile, row, iou in self._pairs():
            attains = iou == prior_iou[tile]
            # indices as float32, exact for 16 million rows: integers are reduced several times slower
            found = torch.where(attains, (row % self.num_rows).float()[:, None], float(self.num_rows))
            first.scatter_reduce_(0, tile[:, None].expand_as(iou), found, "amin")
        # where nothing overlaps, all rows do equally: the first
        first = torch.where(prior_iou > 0, first, 0.0)
        shape = (self.images, self.num_rows)
        return Best(self._untile(prior_iou), self._untile(first).long(), row_iou.reshape(shape))

    def last_attaining(self, wanted: Float[Tensor, "B M"], rows: Bool[Tensor, "B M"]) -> Int[Tensor, "B N"]:
        """See :class:`~detcore_assigners.overlaps.OverlapSearch`."""
        wanted = wanted.masked_fill(~rows, torch.inf).flatten()
        last = torch.full_like(self._tile_columns[0], -1.0)
        for tile, row, iou in self._pairs():
            found = torch.where(iou == wanted[row, None], (row % self.num_rows).float()[:, None], -1.0)
            last.scatter_reduce_(0, tile[:, None].expand_as(iou), found, "amax")
        return self._untile(last).long()

    def first_priors(self, wanted: Float[Tensor, "B M"]) -> Int[Tensor, "B M"]:
        """See :class:`~detcore_assigners.overlaps.OverlapSearch`."""
        first = torch.full_like(self._row_columns[0, :, 0], self.num_priors, dtype=torch.int64)
        index = self._index.reshape(self.num_tiles, self.tile_size)
        for tile, row, iou in self._pairs():
            attains = iou == wanted.flatten()[row, None]
            found = torch.where(attains, index[tile % self.num_tiles], self.num_priors).amin(dim=1)
            first.scatter_reduce_(0, row, found, "amin")
        return first.reshape(wanted.shape)

    def _pairs(self) -> Iterator[_Pairs]:
        """All pairs that may meet, so many at a time that they stay within the budget."""
        for start, stop in slices(self.num_tiles, self.images * self.num_rows):
            image, tile, row = self._meeting(start, stop).nonzero(as_tuple=True)
            tile = image * self.num_tiles + tile + start
            row = image * self.num_rows + row
            for some in (slice(*s) for s in slices(len(tile), self.tile_size)):
                priors = self._tile_columns[:, tile[some]]
                rows = self._row_columns[:, row[some]]
                iou = overlap_of_columns(list(rows), list(priors), "union")
                yield _Pairs(tile[some], row[some], iou)

    def _meeting(self, start: int, stop: int) -> Bool[Tensor, "B t M"]:
        """Which rows overlap with the bounding boxes of tiles ``start`` to ``stop``."""
        x1, y1, x2, y2 = self._bounds[:, start:stop, None].unbind(-1)
        left, top, right, bottom = self.rows[:, None].unbind(-1)
        return (left < x2) & (x1 < right) & (top < y2) & (y1 < bottom)

    def _untile(self, values: Float[Tensor, "BT S"]) -> Float[Tensor, "B N"]:
        """Values per tile in the order of the priors."""
        ordered = values.new_empty(self.images, self.num_priors + 1)
        ordered[:, self._index] = values.reshape(self.images, -1)
        return ordered[:, :-1]


def search_of(
    rows: Float[Tensor, "B M 4"], boxes: Float[Tensor, "B N 4"], levels: tuple[PriorLevel, ...]
) -> OverlapSearch:
    """The search over the IoU of boxes: over the grid where ``levels`` describe one, else over all pairs.

    Args:
        rows: Boxes on one side; without area where they take no part.
        boxes: Priors; without area where they take no part.
        levels: Their grids. Compiled, all pairs are looked at: which tiles meet depends on the data.
    """
    described = sum(level.count for level in levels) == boxes.shape[1]
    if described and not torch.compiler.is_compiling():
        return TileSearch(rows, boxes, levels)
    return DenseSearch.of_boxes(rows, boxes)


def _bounds(tiles: Float[Tensor, "B T S 4"]) -> Float[Tensor, "B T 4"]:
    """Bounding boxes of the priors that have an area; what has none overlaps with nothing."""
    real = (tiles[..., 2:] > tiles[..., :2]).all(dim=-1, keepdim=True)
    low = torch.where(real, tiles[..., :2], torch.inf).amin(dim=2)
    high = torch.where(real, tiles[..., 2:], -torch.inf).amax(dim=2)
    return torch.cat((low, high), dim=-1)


def _tiles(levels: tuple[PriorLevel, ...], device: torch.device) -> Int[Tensor, "T S"]:
    """Indices of the priors of each tile; N where a tile at an edge has none."""
    total = sum(level.count for level in levels)
    found, first = [torch.zeros((0, 1), dtype=torch.int64, device=device)], 0
    for h, w, per_cell, _ in (level for level in levels if level.count):
        side = max(1, math.isqrt(TILE // per_cell))
        down, across = -(-h // side), -(-w // side)
        cells = torch.full((down * side, across * side, per_cell), total, device=device)
        cells[:h, :w] = torch.arange(first, first + h * w * per_cell, device=device).reshape(h, w, per_cell)
        tiles = cells.reshape(down, side, across, side, per_cell).transpose(1, 2)
        found.append(tiles.reshape(down * across, -1))
        first += h * w * per_cell
    size = max(tiles.shape[1] for tiles in found)
    return torch.cat([F.pad(tiles, (0, size - tiles.shape[1]), value=total) for tiles in found])
