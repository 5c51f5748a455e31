"""Overlaps of M ground truths with N priors, searched without ever holding B x M x N of them.

A search answers two questions: what the best overlaps are, and who attains a given overlap exactly. What
stands behind it may change (all pairs in slices, a given matrix, only pairs that can meet); the answers may
not, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detcore.boxes import EPS, area

#: Overlaps computed at once; a handful of float32 temporaries of this many elements exist at a time.
CHUNK = 2**20

#: What divides the intersection: the union, the area of the prior, or the area of the other box.
Divisor = Literal["union", "prior", "row"]


class Best(NamedTuple):
    """The best overlaps of both sides.

    Args:
        prior_iou: Best overlap of each prior with any row.
        prior_row: The first row that attains it.
        row_iou: Best overlap of each row with any prior; -1 where there are no priors.
    """

    prior_iou: Float[Tensor, "B N"]
    prior_row: Int[Tensor, "B N"]
    row_iou: Float[Tensor, "B M"]


class OverlapSearch(Protocol):
    """Where overlaps come from."""

    def best(self) -> Best:
        """The best overlaps of both sides."""

    def last_attaining(self, wanted: Float[Tensor, "B M"], rows: Bool[Tensor, "B M"]) -> Int[Tensor, "B N"]:
        """For each prior the last of ``rows`` whose overlap with it is exactly ``wanted`` (over 0), or -1."""

    def first_priors(self, wanted: Float[Tensor, "B M"]) -> Int[Tensor, "B M"]:
        """For each row the first prior whose overlap with it is exactly ``wanted`` (over 0), or N."""


class BoxOverlaps:
    """Overlaps of rows of boxes with slices of priors; bit for bit those of ``detcore.boxes``.

    Args:
        rows: [B, M, 4].
        priors: [N, 4] or [B, N, 4].
        divisor: What divides the intersection.
    """

    def __init__(
        self, rows: Float[Tensor, "B M 4"], priors: Float[Tensor, "*B N 4"], divisor: Divisor = "union"
    ) -> None:
        self.divisor = divisor
        self.images, self.num_rows = rows.shape[:2]
        self.num_priors = priors.shape[-2]
        # one contiguous vector per coordinate: three times faster on a CPU than strided columns
        self._rows = [c[..., None] for c in (*rows.unbind(-1), area(rows))]
        shared = priors if priors.dim() == 3 else priors[None]
        self._priors = [c.contiguous()[:, None] for c in (*shared.unbind(-1), area(shared))]

    def __call__(self, start: int, stop: int) -> Float[Tensor, "B M n"]:
        """The overlaps with priors ``start`` to ``stop``."""
        return overlap_of_columns(self._rows, [c[..., start:stop] for c in self._priors], self.divisor)


def overlap_of_columns(rows: list[Tensor], priors: list[Tensor], divisor: Divisor) -> Tensor:
    """Overlaps from (x1, y1, x2, y2, area) on either side, broadcast against each other.

    Works in place on its temporaries: not for use under autograd.
    """
    width = torch.minimum(rows[2], priors[2]).sub_(torch.maximum(rows[0], priors[0])).clamp_(min=0)
    height = torch.minimum(rows[3], priors[3]).sub_(torch.maximum(rows[1], priors[1])).clamp_(min=0)
    intersection = width.mul_(height)
    if divisor == "union":
        return intersection.div_((rows[4] + priors[4]).sub_(intersection).clamp_(min=EPS))
    return intersection.div_((priors if divisor == "prior" else rows)[4].clamp(min=EPS))


class DenseSearch:
    """Looks at all pairs, a slice of priors at a time.

    Args:
        overlaps: Gives the overlaps [B, M, n] with priors ``start`` to ``stop``, the same ones at every call.
        like: A tensor [B, M] of the dtype and on the device of the overlaps.
        num_priors: N.
    """

    def __init__(
        self, overlaps: Callable[[int, int], Tensor], like: Float[Tensor, "B M"], num_priors: int
    ) -> None:
        self.overlaps, self.like, self.num_priors = overlaps, like, num_priors

    @classmethod
    def of_boxes(
        cls,
        rows: Float[Tensor, "B M 4"],
        priors: Float[Tensor, "*B N 4"],
        part: Bool[Tensor, "B N"] | None = None,
    ) -> DenseSearch:
        """A search over the IoU of boxes; with priors that take no ``part`` it is 0."""
        overlaps = BoxOverlaps(rows, priors)

        def of_part(start: int, stop: int) -> Tensor:
            found = overlaps(start, stop)
            return found if part is None else found.masked_fill_(~part[:, None, start:stop], 0)

        return cls(of_part, rows[..., 0], priors.shape[-2])

    @classmethod
    def of_matrix(cls, overlaps: Float[Tensor, "B M N"]) -> DenseSearch:
        """A search over overlaps that are given."""
        return cls(
            lambda start, stop: overlaps[..., start:stop],
            overlaps.new_zeros(overlaps.shape[:2]),
            overlaps.shape[2],
        )

    def best(self) -> Best:
        """See :class:`OverlapSearch`."""
        images, _ = self.like.shape
        prior_iou = self.like.new_zeros(images, self.num_priors)
        prior_row = torch.zeros_like(prior_iou, dtype=torch.int64)
        row_iou = torch.full_like(self.like, -1)
        for start, stop in self._slices():
            chunk = self.overlaps(start, stop)
            prior_iou[:, start:stop], prior_row[:, start:stop] = chunk.max(dim=1)
            row_iou = torch.maximum(row_iou, chunk.amax(dim=2))
        return Best(prior_iou, prior_row, row_iou)

    def last_attaining(self, wanted: Float[Tensor, "B M"], rows: Bool[Tensor, "B M"]) -> Int[Tensor, "B N"]:
        """See :class:`OverlapSearch`."""
        images, num_rows = wanted.shape
        found = torch.full((images, self.num_priors), -1, dtype=torch.int64, device=wanted.device)
        index = torch.arange(num_rows, dtype=torch.int32, device=wanted.device)[:, None]
        wanted = wanted.masked_fill(~rows, torch.inf)[..., None]  # no overlap is infinite
        for start, stop in self._slices():
            attained = self.overlaps(start, stop) == wanted
            found[:, start:stop] = torch.where(attained, index, -1).amax(dim=1)
        return found

    def first_priors(self, wanted: Float[Tensor, "B M"]) -> Int[Tensor, "B M"]:
        """See :class:`OverlapSearch`."""
        first = torch.full_like(wanted, self.num_priors, dtype=torch.int64)
        index = torch.arange(self.num_priors, device=wanted.device)
        for start, stop in self._slices():
            attained = self.overlaps(start, stop) == wanted[..., None]
            found = torch.where(attained, index[start:stop], self.num_priors).amin(dim=2)
            first = torch.minimum(first, found)
        return first

    def _slices(self) -> list[tuple[int, int]]:
        return slices(self.num_priors, self.like.numel())


def slices(length: int, width: int) -> list[tuple[int, int]]:
    """Pieces (start, stop) of ``length``; at ``width`` elements per unit none has more than :data:`CHUNK`."""
    step = max(1, CHUNK // max(1, width))
    return [(start, min(start + step, length)) for start in range(0, length, step)]
