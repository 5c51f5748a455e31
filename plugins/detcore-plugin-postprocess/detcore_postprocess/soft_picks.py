"""The best results of Soft-NMS only: as many picks as are asked for, whatever the number of boxes and groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detcore.boxes import aligned_overlap
from detcore_postprocess.candidates import rank_in_group
from detcore_postprocess.interface import Suppressed
from detcore_postprocess.lanes import image_groups

#: Score of boxes that are done.
DONE = -1.0
#: Picks after which it is looked whether anything is left.
ROUND = 32


class _Groups(NamedTuple):
    """The W groups of each image, their boxes one after the other in one list that ends with a spare cell.

    Args:
        start: Cell of the group's first box; the spare one where there is no group.
        size: Boxes of the group.
        best: Highest score that is left, ``DONE`` where nothing is.
        cell: Cell of the box that has it.
    """

    start: Int[Tensor, "B W"]
    size: Int[Tensor, "B W"]
    best: Float[Tensor, "B W"]
    cell: Int[Tensor, "B W"]


@torch.no_grad()
def pick_best(
    boxes: Float[Tensor, "B T 4"],
    scores: Float[Tensor, "B T"],
    groups: Int[Tensor, "B T"],
    valid: Bool[Tensor, "B T"],
    most: int,
    weight: Callable[[Tensor], Tensor],
    min_score: float,
) -> Suppressed:
    """One pick per image and step: the best box of all groups, of equal ones the first.

    A step works on the group of the pick only. Results come in descending order, so that the first ``most`` are
    the best.

    Args:
        boxes: xyxy in pixels.
        scores: Not negative.
        groups: Any integers.
        valid: Rows that take part.
        most: Picks per image.
        weight: Factor of a score by the IoU with the pick.
        min_score: Boxes below are dropped.
    """
    rows = (valid & (scores >= min_score)).flatten().nonzero().squeeze(1)
    final = scores.new_full((scores.numel(),), DONE)
    if len(rows):
        key = image_groups(groups).flatten()[rows]
        order = key.argsort(stable=True)
        rows, key = rows[order], key[order]
        left = torch.cat((scores.flatten()[rows], scores.new_full((1,), DONE)))
        own = torch.cat((boxes.flatten(0, 1)[rows], boxes.new_zeros(1, 4)))
        found = _pick(own, left, _grouped(rows, key, left, scores.shape), rows, most, weight, min_score)
        final[rows] = found[:-1]
    final = final.reshape(scores.shape)
    return Suppressed(final.clamp(min=0), final > DONE)


def _grouped(rows: Tensor, key: Tensor, left: Tensor, shape: torch.Size) -> _Groups:
    """The groups of ascending keys by image."""
    _, number, size = torch.unique_consecutive(key, return_inverse=True, return_counts=True)
    start = size.cumsum(0) - size
    image = torch.div(rows[start], shape[1], rounding_mode="floor")
    place = rank_in_group(image)
    spare = len(rows)
    best = left.new_full(size.shape, DONE).scatter_reduce(0, number, left[:-1], "amax")
    cells = torch.arange(spare, device=rows.device)
    cells = torch.where(left[:-1] == best[number], cells, spare)
    cell = torch.full_like(size, spare).scatter_reduce(0, number, cells, "amin")

    def table(values: Tensor, fill: float) -> Tensor:
        empty = values.new_full((shape[0], int(place.amax()) + 1), fill)
        return empty.index_put((image, place), values)

    return _Groups(table(start, spare), table(size, 0), table(best, DONE), table(cell, spare))


def _pick(
    boxes: Float[Tensor, "P1 4"],
    left: Float[Tensor, "P1"],
    groups: _Groups,
    rows: Int[Tensor, "P"],
    most: int,
    weight: Callable[[Tensor], Tensor],
    min_score: float,
) -> Float[Tensor, "P1"]:
    """The final scores of what is picked, ``DONE`` elsewhere. Changes ``left`` and ``groups``."""
    final = torch.full_like(left, DONE)
    spare = len(rows)
    row_of = torch.cat((rows, rows.new_full((1,), torch.iinfo(rows.dtype).max)))
    places = torch.arange(int(groups.size.amax()), device=rows.device)
    for step in range(most):
        if step % ROUND == 0 and not bool((groups.best > DONE).any()):
            break
        top = groups.best.amax(1, keepdim=True)
        first = torch.where(groups.best == top, row_of[groups.cell], row_of[-1]).argmin(1, keepdim=True)
        cell = groups.cell.gather(1, first)
        final[cell] = torch.maximum(final[cell], top)
        inside = places < groups.size.gather(1, first)
        cells = torch.where(inside, groups.start.gather(1, first) + places, spare)
        scores = left[cells]
        lowered = scores * weight(aligned_overlap(boxes[cell], boxes[cells]))
        done = (scores <= DONE) | (cells == cell) | (lowered < min_score)
        scores = lowered.masked_fill(done, DONE)
        left[cells] = scores
        best, place = scores.max(1, keepdim=True)
        groups.best.scatter_(1, first, best)
        groups.cell.scatter_(1, first, cells.gather(1, place))
    return final
