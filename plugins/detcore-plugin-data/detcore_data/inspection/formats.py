"""Whether boxes look as if their numbers meant something else than they are taken for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

#: So many of the boxes have to be impossible as they are read before another reading is looked for, ...
SUSPICIOUS = 0.1
#: ... and so many have to be possible in the other reading.
CONVINCING = 0.99
_FEWEST = 3
_SLACK = 1.0

Boxes = Float[Tensor, "n 4"]


def other_format(boxes: Boxes, limits: Float[Tensor, "n 2"]) -> str:
    """What the numbers seem to be, where most fit that and many do not fit x, y, w, h; else nothing.

    Args:
        boxes: x, y, w, h as they are read, in pixels; those of formats with corners were converted.
        limits: (w, h) of the boxes' images.
    """
    if len(boxes) < _FEWEST:
        return ""
    if _fractions(boxes, limits):
        return "fractions of the image size (no coordinate is above 1)"
    wrong = ~_fits(boxes, limits)
    if int(wrong.sum()) < max(_FEWEST, SUSPICIOUS * len(boxes)):
        return ""
    shares = {name: float(_fits(read(boxes), limits).double().mean()) for name, read in _READINGS.items()}
    best = max(shares.values())
    if best < CONVINCING:
        return ""
    return " or ".join(name for name, share in shares.items() if share == best)


def _fractions(boxes: Boxes, limits: Float[Tensor, "n 2"]) -> bool:
    large = bool((limits.amin(-1) > 2).all())
    return large and float((boxes.abs() <= 1).all(-1).double().mean()) > CONVINCING


def _fits(boxes: Boxes, limits: Float[Tensor, "n 2"]) -> Bool[Tensor, "n"]:
    """Which boxes have an extent and lie in their image."""
    low, extent = boxes[:, :2], boxes[:, 2:]
    inside = (low >= -_SLACK).all(-1) & (low + extent <= limits + _SLACK).all(-1)
    return inside & (extent > 0).all(-1)


def _from_corners(boxes: Boxes) -> Boxes:
    return torch.cat((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), dim=1)


def _from_extents(boxes: Boxes) -> Boxes:
    return torch.cat((boxes[:, :2], boxes[:, 2:] + boxes[:, :2]), dim=1)


def _from_center(boxes: Boxes) -> Boxes:
    return torch.cat((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]), dim=1)


def _swapped(boxes: Boxes) -> Boxes:
    return boxes[:, [1, 0, 3, 2]]


#: How the numbers may have been meant -> boxes read so.
_READINGS: dict[str, Callable[[Boxes], Boxes]] = {
    "x1, y1, x2, y2 where x, y, w, h are expected": _from_corners,
    "x, y, w, h where x1, y1, x2, y2 are expected": _from_extents,
    "x and y (and w and h) swapped": _swapped,
    "centre x, centre y, w, h where the corner is expected": _from_center,
}
