"""Greedy suppression by the share of the smaller box that is covered."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detcore.boxes import EPS, aligned_intersection, area
from detcore_postprocess.interface import Suppressed
from detcore_postprocess.lanes import suppress_in_lanes


def smaller_overlap(
    a: Float[Tensor, "*S 4"], b: Float[Tensor, "*S 4"], eps: float = EPS
) -> Float[Tensor, "*S"]:
    """Intersection over the area of the smaller box, of each box of ``a`` with that of ``b`` in the same place.

    A part of an object has a small IoU with the whole of it, but lies in it: 1.
    """
    return aligned_intersection(a, b) / torch.minimum(area(a), area(b)).clamp(min=eps)


@torch.no_grad()
def drop_contained(
    boxes: Float[Tensor, "B T 4"],
    scores: Float[Tensor, "B T"],
    groups: Int[Tensor, "B T"],
    valid: Bool[Tensor, "B T"] | None,
    threshold: float,
) -> Suppressed:
    """From the best box on, each drops the worse ones of its group that it overlaps, by :func:`smaller_overlap`.

    All groups advance together; there are as many steps as the largest has boxes.

    Args:
        boxes: xyxy in pixels.
        scores: Stay as they are.
        groups: Any integers; they mean something within an image only.
        valid: Rows that take part; all where None.
        threshold: A box is dropped for a better one where the overlap is above this.
    """

    def method(boxes: Tensor, scores: Tensor, groups: Tensor | None, valid: Tensor) -> Suppressed:
        kept = valid.clone()
        for step in range(1, boxes.shape[1]):
            covered = smaller_overlap(boxes[:, :step], boxes[:, step : step + 1]) > threshold
            covered = covered & kept[:, :step]
            if groups is not None:
                covered = covered & (groups[:, :step] == groups[:, step : step + 1])
            kept[:, step] &= ~covered.any(1)
        return Suppressed(scores, kept)

    return suppress_in_lanes(method, boxes, scores, groups, valid)
