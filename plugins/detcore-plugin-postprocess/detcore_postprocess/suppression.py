"""Non-maximum suppression in groups: a box is dropped for a better one of its own group only.

Groups (class and image, level and image, ...) are moved apart, so that one call of the operator serves
many. The distance is a whole number and the sums are float64: moved boxes overlap as the original ones do. In
float32 the sum of offset and coordinate is rounded, and boxes are kept or dropped by chance. Negative
coordinates are no matter, since the distance follows from the range of the coordinates, not their maximum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detcore.errors import ConfigError
from detcore.operators import nms

#: Boxes per call; the operator's cost is quadratic, so beyond this many groups are shared out among calls.
CALL_CPU, CALL_GPU = 512, 8192
#: Coordinates are cut here, where float32 resolves a pixel no longer.
LIMIT = float(1 << 23)


def batched_nms(
    boxes: Float[Tensor, "P 4"],
    scores: Float[Tensor, "P"],
    groups: Int[Tensor, "P"],
    iou_threshold: float,
    valid: Bool[Tensor, "P"] | None = None,
) -> Int[Tensor, "kept"]:
    """Rows that are kept, by descending score; equal scores by index.

    Args:
        boxes: xyxy in pixels.
        scores: Of two boxes of a group that overlap, the better one stays; of equal ones the first.
        groups: Any integers.
        iou_threshold: A box is dropped for a better one with which its IoU is above this; 1 drops none.
        valid: Rows that take part; all where None.

    Raises:
        ConfigError: ``iou_threshold`` is not within 0..1.
    """
    kept = nms_mask(boxes, scores, groups, iou_threshold, valid).nonzero().squeeze(1)
    return kept[scores[kept].argsort(descending=True, stable=True)]


def grown(boxes: Float[Tensor, "*S 4"], offset: int) -> Float[Tensor, "*S 4"]:
    """Boxes that end ``offset`` pixels later, so that their sizes count the last pixel where it is 1."""
    return boxes + boxes.new_tensor([0, 0, offset, offset]) if offset else boxes


def nms_mask(
    boxes: Float[Tensor, "*S 4"],
    scores: Float[Tensor, "*S"],
    groups: Int[Tensor, "*S"],
    iou_threshold: float,
    valid: Bool[Tensor, "*S"] | None = None,
) -> Bool[Tensor, "*S"]:
    """Which rows are kept, in the shape of ``scores``; otherwise as :func:`batched_nms`.

    Leading dimensions separate nothing: boxes of several images need groups that differ between images. Rows
    with a NaN are not kept, and nothing is dropped for them.
    """
    if not 0 <= iou_threshold <= 1:
        raise ConfigError(f"iou_threshold should be within 0..1, got {iou_threshold}", "nms_mask")
    takes_part = ~(boxes.isnan().any(-1) | scores.isnan())
    if valid is not None:
        takes_part &= valid
    args = (boxes.reshape(-1, 4), scores.flatten(), groups.flatten(), takes_part.flatten(), iou_threshold)
    if not scores.numel():
        return takes_part
    mask = _one_call(*args) if torch.compiler.is_compiling() else _few_calls(*args)
    return mask.reshape(scores.shape)


def _one_call(boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, iou_threshold: float) -> Tensor:
    """For the compiler: everything in one call.

    What is not valid becomes one box in a place of its own: the first of them drops the others, so that rows of
    padding cost little. Two more boxes stand apart from all: captured graphs assert that at least two are kept.
    """
    apart = boxes.new_tensor([[0.0, 0.0, 1.0, 1.0]])
    place = torch.where(valid, groups - groups.amin(), -1)
    boxes = torch.cat((torch.where(valid[:, None], boxes, apart), apart, apart)).double().clamp(-LIMIT, LIMIT)
    scores = torch.cat((torch.where(valid, scores, -1).double(), scores.new_full((2,), -2).double()))
    place = torch.cat((place, place.new_tensor([-2, -3])))
    kept = nms(boxes + place[:, None] * _distance(boxes), scores, iou_threshold)
    return torch.zeros_like(scores, dtype=torch.bool).index_fill(0, kept, True)[:-2] & valid


def _few_calls(boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, iou_threshold: float) -> Tensor:
    """For eager mode: what is valid, ordered by group, as many groups per call as are worth it."""
    rows = valid.nonzero().squeeze(1)
    rows = rows[groups[rows].argsort(stable=True)]
    mask = torch.zeros_like(valid)
    if not len(rows):
        return mask
    _, number, counts = torch.unique_consecutive(groups[rows], return_inverse=True, return_counts=True)
    device = rows.device if rows.device.type != "mps" else torch.device("cpu")  # which has no float64
    boxes = boxes[rows].to(device).double().clamp(-LIMIT, LIMIT)
    boxes, scores = boxes + number.to(device)[:, None] * _distance(boxes), scores[rows].to(device).double()
    limit = CALL_CPU if device.type == "cpu" else CALL_GPU
    for start, end in _runs(counts.tolist(), limit):
        kept = nms(boxes[start:end], scores[start:end], iou_threshold)
        mask[rows[kept.to(rows.device) + start]] = True
    return mask


def _distance(boxes: Float[Tensor, "P 4"]) -> Float[Tensor, ""]:
    """A whole number greater than the range of the coordinates."""
    return (boxes.amax() - boxes.amin()).floor() + 2


def _runs(counts: Iterable[int], limit: int) -> Iterator[tuple[int, int]]:
    """Consecutive groups together until they exceed ``limit`` rows."""
    start = end = 0
    for count in counts:
        if end > start and end + count - start > limit:
            yield start, end
            start = end
        end += count
    yield start, end
