"""Groups of boxes side by side, so that one tensor operation serves all of them.

A *lane* is a row of boxes, mostly by descending score and equal ones by index. In eager mode each lane is one group,
padded to the longest that it is worked on with; lanes of similar length go together, in portions of bounded size.
The compiler needs fixed shapes: there a lane is an image, and methods compare the groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detcore.boxes import pairwise_overlap
from detcore_postprocess.interface import Suppressed

#: Boxes that are worked on at once, where the work on each is small.
CELLS = 1 << 20
#: Likewise where each box is compared with all others of its lane.
PAIRED_CELLS = 1 << 16
#: Pairs of boxes that are compared at once.
PAIRS = 1 << 22

#: How many times the results that are asked for are looked at first, where worse boxes change no better ones.
FIRST = 8

#: (boxes [R, L, 4], scores [R, L], groups [R, L] or None where a lane is a group, valid [R, L]) -> what stays.
LaneMethod = Callable[[Tensor, Tensor, Tensor | None, Tensor], Suppressed]


class Lanes(NamedTuple):
    """R lanes of up to L boxes.

    Args:
        rows: Index of each box, 0 in padding.
        valid: Which cells are boxes rather than padding; in each lane they come first.
    """

    rows: Int[Tensor, "R L"]
    valid: Bool[Tensor, "R L"]


def suppress_in_lanes(
    method: LaneMethod,
    boxes: Float[Tensor, "B T 4"],
    scores: Float[Tensor, "B T"],
    groups: Int[Tensor, "B T"],
    valid: Bool[Tensor, "B T"] | None,
    *,
    cells: int = CELLS,
    longest: int | None = None,
    by_score: bool = True,
) -> Suppressed:
    """Runs a method on all groups. It gets safe values in padding, and scores of at least float32.

    Args:
        method: What is done with lanes.
        boxes: xyxy in pixels.
        scores: Not negative.
        groups: Of each box within its image.
        valid: Rows that take part; all where None. Rows with a NaN do not.
        cells: Boxes that are worked on at once.
        longest: Most boxes of a group; worse ones take no part. In eager mode only.
        by_score: Whether boxes come by descending score in their lane, or in their order.
    """
    boxes, scores, valid = cleaned(boxes, scores, valid)
    if torch.compiler.is_compiling():
        return _lane_per_image(method, boxes, scores, groups, valid, by_score)
    flat_boxes, flat_scores, flat_valid = boxes.flatten(0, 1), scores.flatten(), valid.flatten()
    result, kept = flat_scores.clone(), torch.zeros_like(flat_valid)
    for lanes in lanes_of(image_groups(groups).flatten(), flat_scores, flat_valid, cells, longest, by_score):
        own = torch.where(lanes.valid[..., None], flat_boxes[lanes.rows], 0)
        left = method(own, torch.where(lanes.valid, flat_scores[lanes.rows], 0), None, lanes.valid)
        rows = lanes.rows[lanes.valid]
        result[rows], kept[rows] = left.scores[lanes.valid], left.kept[lanes.valid]
    return Suppressed(result.reshape(scores.shape), kept.reshape(scores.shape))


def _lane_per_image(
    method: LaneMethod, boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, by_score: bool
) -> Suppressed:
    if not by_score:
        left = method(boxes, scores, groups, valid)
        return left._replace(kept=left.kept & valid)
    order = scores.masked_fill(~valid, -1).argsort(dim=1, descending=True, stable=True)
    own = boxes.gather(1, order[..., None].expand(-1, -1, 4))
    left = method(own, scores.gather(1, order), groups.gather(1, order), valid.gather(1, order))
    back = order.argsort(dim=1)
    return Suppressed(left.scores.gather(1, back), left.kept.gather(1, back) & valid)


def cleaned(
    boxes: Float[Tensor, "B T 4"], scores: Float[Tensor, "B T"], valid: Bool[Tensor, "B T"] | None
) -> tuple[Float[Tensor, "B T 4"], Float[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """Boxes, scores of at least float32, and which rows take part; zeros in those that do not."""
    valid = takes_part(boxes, scores, valid)
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    boxes = torch.where(valid[..., None], boxes.to(scores.dtype), 0)
    return boxes, torch.where(valid, scores, 0), valid


def takes_part(boxes: Tensor, scores: Tensor, valid: Tensor | None) -> Bool[Tensor, "*S"]:
    """Rows that are valid and hold no NaN."""
    sound = ~(boxes.isnan().any(-1) | scores.isnan())
    return sound if valid is None else sound & valid


def places(scores: Float[Tensor, "B T"], valid: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """The place of each row in its image by descending score, of equal ones the first first; invalid rows last."""
    order = scores.masked_fill(~valid, -1).argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1)


def image_groups(groups: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Groups that differ between images, in the order of the images."""
    if not groups.numel():
        return groups
    low = groups.amin()
    span = groups.amax() - low + 1
    return torch.arange(len(groups), device=groups.device)[:, None] * span + groups - low


def lanes_of(
    groups: Int[Tensor, "P"],
    scores: Float[Tensor, "P"],
    valid: Bool[Tensor, "P"],
    cells: int = CELLS,
    longest: int | None = None,
    by_score: bool = True,
) -> Iterator[Lanes]:
    """One lane per group, in portions of at most ``cells`` cells unless one group is larger."""
    rows = valid.nonzero().squeeze(1)
    if not len(rows):
        return
    if by_score:
        rows = rows[scores[rows].argsort(descending=True, stable=True)]
    rows = rows[groups[rows].argsort(stable=True)]
    _, counts = torch.unique_consecutive(groups[rows], return_counts=True)
    starts = counts.cumsum(0) - counts
    counts = counts if longest is None else counts.clamp(max=longest)
    counts, order = counts.sort(descending=True, stable=True)
    starts = starts[order]
    for first, last, width in _portions(counts.tolist(), cells):
        slots = torch.arange(width, device=rows.device)
        real = slots < counts[first:last, None]
        index = (starts[first:last, None] + slots).clamp(max=len(rows) - 1)
        yield Lanes(torch.where(real, rows[index], 0), real)


def _portions(counts: Sequence[int], cells: int) -> Iterator[tuple[int, int, int]]:
    """(first lane, end, longest lane): lanes of descending length, none less than half as long as the first."""
    first = 0
    for index, count in enumerate(counts):
        width = counts[first]
        if index > first and ((index + 1 - first) * width > cells or 2 * count < width):
            yield first, index, width
            first = index
    yield first, len(counts), counts[first]


def better_overlaps(
    boxes: Float[Tensor, "R L 4"], groups: Int[Tensor, "R L"] | None
) -> Iterator[tuple[slice, Float[Tensor, "R E c"]]]:
    """IoU of each box with those before it in its lane and group, 0 for all others; c boxes at a time.

    Yields:
        Which boxes, and their IoU with the first E of the lane, E being the end of the slice.
    """
    length = boxes.shape[1]
    lanes = (
        1 if torch.compiler.is_compiling() else len(boxes)
    )  # the compiler may not know the number of images
    step = max(1, PAIRS // max(1, lanes * length))
    place = torch.arange(length, device=boxes.device)
    for start in range(0, length, step):
        end = min(start + step, length)
        better = place[:end, None] < place[start:end]
        if groups is not None:
            better = better & (groups[:, :end, None] == groups[:, None, start:end])
        overlaps = pairwise_overlap(boxes[:, :end], boxes[:, start:end])
        yield slice(start, end), torch.where(better, overlaps, 0)
