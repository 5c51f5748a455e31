"""The search over a grid: a ground truth is compared with the tiles of priors that it can meet, not with all.

Each level is cut into tiles of neighbouring cells. A ground truth outside of a tile's bounding box overlaps
with none of its priors; the overlaps of the rest are computed as ever. So the answers are those of
:class:`~detcore_assigners.overlaps.DenseSearch` to the bit, wherever the priors lie, and on a grid most pairs
are never looked at.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from detcore.boxes import area
from detcore.structures import PriorLevel
from detcore_assigners.kept import Kept
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
        priors: Shared by the images, or of each.
        levels: The grids of the priors.
        part: Which priors take part; the others overlap with nothing. None means all.
    """

    def __init__(
        self,
        rows: Float[Tensor, "B M 4"],
        priors: Float[Tensor, "*B N 4"],
        levels: tuple[PriorLevel, ...],
        part: Bool[Tensor, "B N"] | None = None,
    ) -> None:
        self.images, self.num_rows, _ = rows.shape
        self.num_priors = priors.shape[-2]
        self.rows = rows
        self._row_columns = torch.cat((rows, area(rows)[..., None]), dim=-1).reshape(-1, 5).T[..., None]
        self._tiles = tiles_of(priors, levels)
        self.num_tiles, self.tile_size = self._tiles.priors.shape
        self._out = None if part is None or bool(part.all()) else self._tiles.arranged(F.pad(~part, (0, 1)))
        self._few: list[_Pairs] | None = None

    def best(self) -> Best:
        """See :class:`~detcore_assigners.overlaps.OverlapSearch`."""
        prior_iou = self.rows.new_zeros(self.images * self.num_tiles, self.tile_size)
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
        return Best(self._untiled(prior_iou), self._untiled(first).long(), row_iou.reshape(shape))

    def last_attaining(self, wanted: Float[Tensor, "B M"], rows: Bool[Tensor, "B M"]) -> Int[Tensor, "B N"]:
        """See :class:`~detcore_assigners.overlaps.OverlapSearch`."""
        wanted = wanted.masked_fill(~rows, torch.inf).flatten()
        last = self.rows.new_full((self.images * self.num_tiles, self.tile_size), -1.0)
        for tile, row, iou in self._pairs():
            found = torch.where(iou == wanted[row, None], (row % self.num_rows).float()[:, None], -1.0)
            last.scatter_reduce_(0, tile[:, None].expand_as(iou), found, "amax")
        return self._untiled(last).long()

    def first_priors(self, wanted: Float[Tensor, "B M"]) -> Int[Tensor, "B M"]:
        """See :class:`~detcore_assigners.overlaps.OverlapSearch`."""
        first = torch.full_like(self._row_columns[0, :, 0], self.num_priors, dtype=torch.int64)
        for tile, row, iou in self._pairs():
            attains = iou == wanted.flatten()[row, None]
            prior = self._tiles.priors[tile % self.num_tiles]
            found = torch.where(attains, prior, self.num_priors).amin(dim=1)
            first.scatter_reduce_(0, row, found, "amin")
        return first.reshape(wanted.shape)

    def _pairs(self) -> Iterable[_Pairs]:
        """All pairs that may meet, so many at a time that they stay within the budget; those of one time are kept."""
        if self._few is None:
            pieces = self._looked_up()
            first, second = next(pieces, None), next(pieces, None)
            if second is not None and first is not None:
                return itertools.chain((first, second), pieces)
            self._few = [] if first is None else [first]
        return self._few

    def _looked_up(self) -> Iterator[_Pairs]:
        for start, stop in slices(self.num_tiles, self.images * self.num_rows):
            image, tile, row = self._meeting(start, stop).nonzero(as_tuple=True)
            tile = image * self.num_tiles + tile + start
            row = image * self.num_rows + row
            for some in (slice(*s) for s in slices(len(tile), self.tile_size)):
                yield _Pairs(tile[some], row[some], self._overlaps(tile[some], row[some]))

    def _overlaps(self, tile: Int[Tensor, "k"], row: Int[Tensor, "k"]) -> Float[Tensor, "k S"]:
        """Overlaps of rows with the priors of a tile each; 0 where these take no part."""
        priors = self._tiles.columns[:, tile % self._tiles.columns.shape[1]]  # images may share the tiles
        iou = overlap_of_columns(list(self._row_columns[:, row]), list(priors), "union")
        return iou if self._out is None else iou.masked_fill_(self._out[tile], 0)

    def _meeting(self, start: int, stop: int) -> Bool[Tensor, "B t M"]:
        """Which rows overlap with the bounding boxes of tiles ``start`` to ``stop``."""
        x1, y1, x2, y2 = self._tiles.bounds[:, :, start:stop, None]
        left, top, right, bottom = self.rows[:, None].unbind(-1)
        meeting: Tensor = (left < x2) & (x1 < right) & (top < y2) & (y1 < bottom)
        return meeting

    def _untiled(self, values: Float[Tensor, "BT S"]) -> Float[Tensor, "B N"]:
        """Values per tile in the order of the priors."""
        return values.reshape(self.images, -1).gather(1, self._tiles.place.expand(self.images, -1))


def search_of(
    rows: Float[Tensor, "B M 4"],
    priors: Float[Tensor, "*B N 4"],
    levels: tuple[PriorLevel, ...],
    part: Bool[Tensor, "B N"] | None = None,
) -> OverlapSearch:
    """The search over the IoU of boxes: over the grid where ``levels`` describe one, else over all pairs.

    Args:
        rows: Boxes on one side; without area where they take no part.
        priors: Shared by the images, or of each.
        levels: Their grids. Compiled, all pairs are looked at: which tiles meet depends on the data.
        part: Which priors take part; the others overlap with nothing. None means all.
    """
    described = sum(level.count for level in levels) == priors.shape[-2]
    if described and not torch.compiler.is_compiling():
        return TileSearch(rows, priors, levels, part)
    return DenseSearch.of_boxes(rows, priors, part)


class Tiles(NamedTuple):
    """Priors arranged in T tiles of S.

    Args:
        priors: Those of each tile; N where a tile at an edge has none.
        place: Where each prior is among all tiles.
        columns: x1, y1, x2, y2 and area by tile, of all G sets of priors; where there is no prior, those of a box
            that reaches nowhere.
        bounds: x1, y1, x2, y2 of the bounding boxes.
    """

    priors: Int[Tensor, "T S"]
    place: Int[Tensor, "N"]
    columns: Float[Tensor, "5 GT S"]
    bounds: Float[Tensor, "4 G T"]

    def arranged(self, values: Shaped[Tensor, "R N+1"]) -> Shaped[Tensor, "RT S"]:
        """Values per prior, and one for where there is none, by tile."""
        return _arranged(values, self.priors)


_kept: Kept[Tiles] = Kept(size=8)


def tiles_of(priors: Float[Tensor, "*G N 4"], levels: tuple[PriorLevel, ...]) -> Tiles:
    """The tiles of priors on a grid; generators give the same tensor for the same grid, its tiles are kept.

    Args:
        priors: One set, or one per image.
        levels: The grids, of N priors in all.
    """
    if priors.dim() == 3:
        return _tiles(priors, levels)
    return _kept.get(priors, levels, lambda: _tiles(priors[None], levels))


def _tiles(priors: Float[Tensor, "G N 4"], levels: tuple[PriorLevel, ...]) -> Tiles:
    index = _index(levels, priors.device)
    place = torch.empty(priors.shape[1] + 1, dtype=torch.int64, device=priors.device)
    place[index.flatten()] = torch.arange(index.numel(), device=priors.device)
    values = priors.new_zeros(5, priors.shape[0], priors.shape[1] + 1)
    values[:4, :, :-1] = priors.movedim(-1, 0)
    values[4, :, :-1] = area(priors)
    values[:2, :, -1], values[2:4, :, -1] = torch.inf, -torch.inf
    (count, size), sets = index.shape, len(priors)
    columns = _arranged(values.flatten(0, 1), index).reshape(5, sets * count, size)
    bounds = torch.cat((columns[:2].amin(dim=-1), columns[2:4].amax(dim=-1)))
    return Tiles(index, place[:-1], columns, bounds.reshape(4, sets, count))


def _arranged(values: Shaped[Tensor, "R N+1"], index: Int[Tensor, "T S"]) -> Shaped[Tensor, "RT S"]:
    return values.gather(1, index.reshape(1, -1).expand(len(values), -1)).reshape(-1, index.shape[1])


def _index(levels: tuple[PriorLevel, ...], device: torch.device) -> Int[Tensor, "T S"]:
    """The priors of each tile; N where a tile at an edge has none."""
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
