"""What is odd about the boxes of a kept batch."""

from __future__ import annotations

import math

from detcore_data import ExampleBatch

#: Pixels that a box may reach out of its image: rounding, not a mistake.
_SLACK = 1.0


def check_boxes(batch: ExampleBatch, index: int, classes: int) -> dict[int, str]:
    """What is odd about an image's ground truth, by row; rows of which nothing is to say are left out.

    Args:
        batch: The batch.
        index: Which image.
        classes: Number of classes.
    """
    height, width = batch.images[index].shape[-2:]
    targets, found = batch.targets, {}
    for row in targets.valid[index].nonzero().flatten().tolist():
        box, label = targets.boxes[index, row].tolist(), int(targets.labels[index, row])
        odd = _odd(box, height, width)
        if not 0 <= label < classes:
            odd.append(f"label {label}, but there are {classes} classes")
        if targets.masks is not None and not int(targets.masks.sizes[index, row].prod()):
            odd.append("empty mask")
        if odd:
            found[row] = "; ".join(odd)
    return found


def _odd(box: list[float], height: int, width: int) -> list[str]:
    x1, y1, x2, y2 = box
    shown = f"box [{', '.join(f'{value:g}' for value in box)}]"
    if not all(map(math.isfinite, box)):
        return [f"{shown} is not finite"]
    if x2 <= x1 or y2 <= y1:
        return [f"{shown} has no extent"]
    odd = []
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        odd.append(f"{shown} lies outside its image of {width} x {height} pixels")
    elif min(x1, y1) < -_SLACK or x2 > width + _SLACK or y2 > height + _SLACK:
        odd.append(f"{shown} reaches out of its image of {width} x {height} pixels")
    if min(x2 - x1, y2 - y1) < 1:
        odd.append(f"{shown} is less than a pixel wide or high")
    return odd
