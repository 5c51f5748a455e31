"""Cutting a random part out of a picture."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from detcore.interfaces import Example, Transform
from detcore_augment.draws import check_range, integer, uniform
from detcore_augment.objects import Leftover, MinRatio, MinSize, around_masks, trimmed
from detcore_augment.pictures import window

#: Windows that are tried before one is put around an object.
_TRIES = 10


class RandomCrop(Transform):
    """Cuts a window at a random place out of the picture.

    Args:
        crop_size: (w, h) of the window. ``absolute``: in pixels, or as much as there is. ``absolute_range``: lowest
            and highest edge in pixels; width and height are drawn between them. ``relative``: fractions of the
            picture's. ``relative_range``: lowest fractions; drawn between them and 1.
        crop_type: What ``crop_size`` means.
        allow_negative_crop: Whether a window without an object is fine in a picture that has some. If not, windows
            are drawn until one has an object, and after ten it is put around the centre of one.
        recompute_bbox: Whether the boxes are made anew around what is left of the masks, where there are masks.
        min_bbox_size: Objects with a side below this are left out, in pixels. The reference keeps all (0).
        min_area_ratio: Objects of which less than this fraction of the box is in the window are left over. The
            reference keeps all (0).
        leftover: What becomes of them: regions to ignore, or nothing.
    """

    def __init__(
        self,
        *,
        crop_size: tuple[float, float],
        crop_type: Literal["absolute", "absolute_range", "relative", "relative_range"] = "absolute",
        allow_negative_crop: bool = False,
        recompute_bbox: bool = False,
        min_bbox_size: MinSize = 1.0,
        min_area_ratio: MinRatio = 0.1,
        leftover: Leftover = "ignore",
    ) -> None:
        if crop_type.startswith("relative"):
            if not all(0 < part <= 1 for part in crop_size):
                raise ValueError(
                    f"crop_size should be fractions in (0, 1] for {crop_type!r}, got {crop_size}"
                )
        elif not all(edge >= 1 and edge == int(edge) for edge in crop_size):
            raise ValueError(f"crop_size should be whole pixels for {crop_type!r}, got {crop_size}")
        if crop_type == "absolute_range":
            check_range("crop_size", crop_size, 1)
        self.crop_size, self.crop_type = crop_size, crop_type
        self.allow_negative_crop, self.recompute_bbox = allow_negative_crop, recompute_bbox
        self.min_bbox_size, self.min_area_ratio, self.leftover = min_bbox_size, min_area_ratio, leftover

    def __call__(self, example: Example) -> Example:
        """See :class:`~detcore.interfaces.Transform`."""
        height, width = example["image"].shape[-2:]
        size = self.size_of((height, width))
        objects = example["boxes"].as_subclass(Tensor)[~example["ignore"]]
        any_will_do = self.allow_negative_crop or not len(objects)
        for _ in range(_TRIES):
            x, y = integer(0, width - size[1]), integer(0, height - size[0])
            result = self._cut(example, x, y, size)
            if any_will_do or not result["ignore"].all():
                return result
        chosen = objects[integer(0, len(objects) - 1)]
        (left, top), (right, bottom) = chosen[:2].tolist(), chosen[2:].tolist()
        x = _covering((left + right) / 2, size[1], width)
        y = _covering((top + bottom) / 2, size[0], height)
        return self._cut(example, x, y, size)

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of a window in a picture of (h, w), in pixels; drawn where it is a range."""
        height, width = size
        first, second = self.crop_size
        if self.crop_type == "absolute":
            return min(height, int(second)), min(width, int(first))
        if self.crop_type == "absolute_range":
            h, w = (integer(min(edge, int(first)), min(edge, int(second))) for edge in size)
            return h, w
        if self.crop_type == "relative_range":
            first, second = uniform(first, 1), uniform(second, 1)
        return max(1, int(height * second + 0.5)), max(1, int(width * first + 0.5))

    def _cut(self, example: Example, x: int, y: int, size: tuple[int, int]) -> Example:
        result = trimmed(
            window(example, x, y, size),
            min_bbox_size=self.min_bbox_size,
            min_area_ratio=self.min_area_ratio,
            leftover=self.leftover,
        )
        return around_masks(result) if self.recompute_bbox else result


def _covering(point: float, length: int, limit: int) -> int:
    """A random place for a window of that length that has the point inside, and is inside of the limit."""
    low, high = max(0, int(point) + 1 - length), min(int(point), limit - length)
    return integer(min(low, high), high)
