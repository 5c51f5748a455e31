"""Cutting out a part that overlaps the objects by a drawn amount."""

from __future__ import annotations

from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor
from torchvision.ops import box_iou

from detcore.interfaces import Example, Transform
from detcore_augment.draws import integer, one_of, uniform
from detcore_augment.objects import Leftover, MinSize, trimmed
from detcore_augment.pictures import window

#: Windows that are tried for one drawn overlap before another is drawn.
_TRIES = 50
_Ratio = Annotated[float, Field(gt=0, le=1)]


class MinIoURandomCrop(Transform):
    """Cuts out a window whose IoU with every object is at least a drawn value; or nothing; or any window.

    From SSD (Liu et al., arXiv 1512.02325), as in the reference: one of ``min_ious``, "any" and "leave it" is drawn;
    the window's edges are at least ``min_crop_size`` of the picture's, its shape lies between 1:2 and 2:1, and it has
    the centre of at least one object. Objects whose centre it does not have are left over. A picture without objects
    is cut anywhere.

    Args:
        min_ious: Overlaps that are asked for.
        min_crop_size: Lowest ratio of the window's edges to the picture's.
        min_bbox_size: Objects with a side below this are left out, in pixels. The reference keeps all (0).
        leftover: What becomes of objects whose centre is outside: regions to ignore, or nothing, as in the reference.
    """

    def __init__(
        self,
        *,
        min_ious: Annotated[tuple[_Ratio, ...], Field(min_length=1)] = (0.1, 0.3, 0.5, 0.7, 0.9),
        min_crop_size: _Ratio = 0.3,
        min_bbox_size: MinSize = 1.0,
        leftover: Leftover = "ignore",
    ) -> None:
        self.min_ious, self.min_crop_size = min_ious, min_crop_size
        self.min_bbox_size, self.leftover = min_bbox_size, leftover

    def __call__(self, example: Example) -> Example:
        """See :class:`~detcore.interfaces.Transform`."""
        while True:  # ends: "leave it" is drawn in the end, with probability 1
            least = one_of((None, *self.min_ious, 0.0))
            if least is None:
                return cast(Example, {**example})
            found = self._window(example, least)
            if found is not None:
                return self._cut(example, found)

    def _window(self, example: Example, least: float) -> Tensor | None:
        """A window (x1, y1, x2, y2) with that overlap; None where none was found."""
        height, width = example["image"].shape[-2:]
        boxes = example["boxes"].as_subclass(Tensor)[~example["ignore"]]
        for _ in range(_TRIES):
            w = max(1, int(uniform(self.min_crop_size * width, width)))
            h = max(1, int(uniform(self.min_crop_size * height, height)))
            x, y = integer(0, width - w), integer(0, height - h)
            if not 0.5 <= h / w <= 2:
                continue
            found = torch.tensor([x, y, x + w, y + h], dtype=torch.float32)
            if not len(boxes):
                return found
            if bool((box_iou(found[None], boxes) >= least).all() and _centered(boxes, found).any()):
                return found
        return None

    def _cut(self, example: Example, found: Tensor) -> Example:
        x1, y1, x2, y2 = (int(edge) for edge in found)
        return trimmed(
            window(example, x1, y1, (y2 - y1, x2 - x1)),
            min_bbox_size=self.min_bbox_size,
            min_area_ratio=0.0,
            leftover=self.leftover,
            cut=~_centered(example["boxes"].as_subclass(Tensor), found),
        )


def _centered(boxes: Tensor, found: Tensor) -> Tensor:
    """Which boxes have their centre inside of the window."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centers > found[:2]) & (centers < found[2:])).all(-1)
