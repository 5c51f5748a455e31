"""Turning, scaling, shearing and moving at random."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from detcore.errors import DataError
from detcore.interfaces import Example, Transform
from detcore.structures import ImageGeometry
from detcore_augment.draws import Color, check_range, rgb, uniform
from detcore_augment.objects import Leftover, MinRatio, MinSize, around_masks, masks_of, moved, trimmed
from detcore_augment.pictures import rescaled_geometry, warp_boxes, warp_image, warp_masks


class RandomAffine(Transform):
    """Scales, turns, shears and moves the picture, in this order, by random amounts.

    As in YOLOX (Ge et al., arXiv 2107.08430). A box becomes the upright box around its four corners. Where
    nothing is turned or sheared, the way back to the file is kept; else the result is a picture of its own.

    Args:
        max_rotate_degree: Largest turn either way, in degrees.
        max_translate_ratio: Largest move either way, as a fraction of the new width and height.
        scaling_ratio_range: Lowest and highest factor.
        max_shear_degree: Largest shear of each axis either way, in degrees.
        border: Pixels (x, y) that are added on each side, or cut off where negative: (-320, -320) makes a
            picture of 640 x 640 of a mosaic of 1280 x 1280.
        border_val: Colour of what is outside of the picture, one value or red, green, blue, on the scale 0..255.
        around: The point that stays in place but for the move: the ``center`` of the picture comes to the centre
            of the new one; or its upper left ``corner`` to the new one's, as in the reference.
        min_bbox_size: Objects with a side below this are left out, in pixels. The reference keeps all (0).
        min_area_ratio: Objects of which less than this fraction of the box is in the picture are left over. The
            reference keeps all (0).
        leftover: What becomes of them: regions to ignore, or nothing.
        recompute_bbox: Whether the boxes are made anew around the masks, where there are masks: that of a turned
            object is then no larger than the object.
    """

    def __init__(
        self,
        *,
        max_rotate_degree: Annotated[float, Field(ge=0, le=180)] = 10.0,
        max_translate_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1,
        scaling_ratio_range: tuple[float, float] = (0.5, 1.5),
        max_shear_degree: Annotated[float, Field(ge=0, lt=45)] = 2.0,
        border: tuple[int, int] = (0, 0),
        border_val: Color = 114,
        around: Literal["center", "corner"] = "center",
        min_bbox_size: MinSize = 1.0,
        min_area_ratio: MinRatio = 0.1,
        leftover: Leftover = "ignore",
        recompute_bbox: bool = False,
    ) -> None:
        check_range("scaling_ratio_range", scaling_ratio_range, 0.01)
        self.max_rotate_degree, self.max_translate_ratio = max_rotate_degree, max_translate_ratio
        self.scaling_ratio_range, self.max_shear_degree = scaling_ratio_range, max_shear_degree
        self.border, self.border_val, self.around = border, rgb(border_val), around
        self.min_bbox_size, self.min_area_ratio, self.leftover = min_bbox_size, min_area_ratio, leftover
        self.recompute_bbox = recompute_bbox

    def __call__(self, example: Example) -> Example:
        """See :class:`~detcore.interfaces.Transform`.

        Raises:
            DataError: A negative ``border`` leaves nothing of the image; names the file.
        """
        height, width = example["image"].shape[-2:]
        size = (height + 2 * self.border[1], width + 2 * self.border[0])
        if min(size) < 1:
            raise DataError(
                f"{example['file']}: border={self.border} leaves nothing of its {width} x {height} pixels; "
                "a border belongs after Mosaic, whose canvas is twice img_scale"
            )
        matrix = self.draw((height, width), size)
        masks = masks_of(example)
        result = moved(
            example,
            image=warp_image(example["image"].as_subclass(Tensor), matrix, size, self.border_val),
            boxes=warp_boxes(example["boxes"].as_subclass(Tensor), matrix),
            masks=None if masks is None else warp_masks(masks, matrix, size),
            geometry=self._geometry(example, matrix, size),
        )
        result = trimmed(
            result,
            min_bbox_size=self.min_bbox_size,
            min_area_ratio=self.min_area_ratio,
            leftover=self.leftover,
        )
        return around_masks(result) if self.recompute_bbox else result

    def draw(self, old: tuple[int, int], new: tuple[int, int]) -> Float[Tensor, "3 3"]:
        """A map from the old picture's points (x, y, 1) to the new one's, in float64.

        Args:
            old: (h, w) in pixels.
            new: (h, w) in pixels.
        """
        angle = math.radians(uniform(-self.max_rotate_degree, self.max_rotate_degree))
        factor = uniform(*self.scaling_ratio_range)
        shear = [
            math.tan(math.radians(uniform(-self.max_shear_degree, self.max_shear_degree))) for _ in range(2)
        ]
        move = [uniform(-self.max_translate_ratio, self.max_translate_ratio) * edge for edge in new[::-1]]
        cos, sin = factor * math.cos(angle), factor * math.sin(angle)
        turned = _matrix([[1, shear[0], 0], [shear[1], 1, 0]]) @ _matrix([[cos, -sin, 0], [sin, cos, 0]])
        if self.around == "corner":
            return _moving(*move) @ turned
        there = _moving(move[0] + new[1] / 2, move[1] + new[0] / 2)
        return there @ turned @ _moving(-old[1] / 2, -old[0] / 2)

    def _geometry(self, example: Example, matrix: Tensor, size: tuple[int, int]) -> ImageGeometry:
        if self.max_rotate_degree or self.max_shear_degree:
            return ImageGeometry(size)
        factor, shift = float(matrix[0, 0]), (float(matrix[0, 2]), float(matrix[1, 2]))
        height, width = example["image"].shape[-2:]
        return rescaled_geometry(example["geometry"], (height, width), size, factor, shift)


def _matrix(rows: list[list[float]]) -> Tensor:
    return torch.tensor([*rows, [0, 0, 1]], dtype=torch.float64)


def _moving(x: float, y: float) -> Tensor:
    return _matrix([[1, 0, x], [0, 1, y]])
