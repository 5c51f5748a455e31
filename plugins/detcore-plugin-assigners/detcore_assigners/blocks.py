"""Pieces of a batch's ground truths, so that all their pairs with priors never exist at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from detcore_assigners import overlaps


class Block(NamedTuple):
    """Some rows of some images.

    Args:
        images: The images, in order.
        rows: The rows of each of them.
    """

    images: Int[Tensor, "b"]
    rows: slice

    def of(self, values: Tensor) -> Tensor:
        """Values [B, M, ...] of the block's rows: [b, m, ...]."""
        return values[self.images, self.rows]


def blocks(matchable: Bool[Tensor, "B M"], width: int) -> list[Block]:
    """Blocks that hold every matchable row once, each of at most ``overlaps.CHUNK`` pairs (or of one row).

    An image is in no block beyond its last matchable row, so that one image of five thousand objects in a
    batch costs its own objects and not five thousand for every other image. Waits for the device to know
    these; compiled, all rows of all images are looked at.

    Args:
        matchable: Rows that are ground truths.
        width: Pairs per row, N.
    """
    count, rows = matchable.shape
    everyone = torch.arange(count, device=matchable.device)
    if not matchable.numel():
        return []
    if torch.compiler.is_compiling():
        return [Block(everyone, slice(*piece)) for piece in overlaps.slices(rows, count * width)]
    number = torch.arange(1, rows + 1, device=matchable.device)
    lengths = torch.where(matchable, number, 0).amax(dim=1)
    found, start, longest = [], 0, sorted(lengths.tolist())
    while start < longest[-1]:
        there = sum(length > start for length in longest)
        step = max(1, overlaps.CHUNK // max(1, there * width))
        stop = min(start + step, longest[-1])
        images = everyone if there == count else (lengths > start).nonzero()[:, 0]
        found.append(Block(images, slice(start, stop)))
        start = stop
    return found
