"""Anchors: boxes of several sizes and shapes in every cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from detcore.component import wired
from detcore.interfaces import PriorGenerator
from detcore.structures import ImageBatch, Priors
from detcore_priors.grid import BaseBox, PriorGrid, stride_pairs

_Positive = Annotated[float, Field(gt=0)]
_Step = Annotated[int, Field(ge=1)]


class AnchorGenerator(PriorGenerator):
    """Anchors of every ratio and scale around a point of every cell.

    An anchor has the area (base size * scale)^2 and the height-to-width ratio ``ratio``. From "Faster R-CNN:
    Towards Real-Time Object Detection with Region Proposal Networks" (arXiv 1506.01497); octave scales from
    "Focal Loss for Dense Object Detection" (arXiv 1708.02002).

    Args:
        ratios: Height divided by width.
        scales: Factors on the base size. Either these, or ``octave_base_scale`` with ``scales_per_octave``.
        octave_base_scale: Smallest of the scales that divide one octave evenly.
        scales_per_octave: Number of scales in one octave: base * 2^(i / number).
        base_sizes: Side in pixels of the square with scale 1, by level; the (smaller) stride where omitted.
        scale_major: Order within a cell: all scales of the first ratio, then of the next (True), or all
            ratios of the first scale, then of the next (False).
        centers: Centre (x, y) in pixels of the anchors of the first cell, by level; from ``center_offset``
            where omitted.
        center_offset: Where in its cell the centre lies: 0 at the top left corner, 0.5 in the middle.
        center_offset_unit: What ``center_offset`` is a fraction of: the stride in x and y, or the base size
            in both. They differ only for strides that differ in x and y, and for given ``base_sizes``;
            "base_size" is what MMDetection does, and puts the centres beside the middle of the cells.
        strides: Pixels per cell, by level; a pair is (x, y).

    Raises:
        ConfigError: Not exactly one way of giving scales; a number of base sizes or centres that is not the
            number of strides; centres together with an offset.
    """

    def __init__(
        self,
        *,
        ratios: Annotated[tuple[_Positive, ...], Field(min_length=1)],
        scales: Annotated[tuple[_Positive, ...], Field(min_length=1)] | None = None,
        octave_base_scale: _Positive | None = None,
        scales_per_octave: Annotated[int, Field(ge=1)] | None = None,
        base_sizes: tuple[_Positive, ...] | None = None,
        scale_major: bool = True,
        centers: tuple[tuple[float, float], ...] | None = None,
        center_offset: Annotated[float, Field(ge=0, le=1)] = 0.0,
        center_offset_unit: Literal["stride", "base_size"] = "stride",
        strides: Annotated[tuple[_Step | tuple[_Step, _Step], ...], Field(min_length=1)] = wired(
            may_override=True
        ),
    ) -> None:
        self.strides = stride_pairs(strides)
        self.ratios = ratios
        self.scales = _scales(scales, octave_base_scale, scales_per_octave)
        self.scale_major = scale_major
        self._check_count("base_sizes", base_sizes)
        self.base_sizes = base_sizes or tuple(float(min(pair)) for pair in self.strides)
        if centers is not None and center_offset != 0:
            raise ValueError(
                f"centers and center_offset={center_offset} both say where anchors lie; leave out one of them"
            )
        self._check_count("centers", centers)
        self.centers = centers or self._centers(center_offset, center_offset_unit)
        base = [self._base(size, center) for size, center in zip(self.base_sizes, self.centers, strict=True)]
        self._grid = PriorGrid(base, self.strides, type(self).__name__)
        self.num_per_cell = tuple(len(boxes) for boxes in base)

    @property
    def base_anchors(self) -> tuple[Float[Tensor, "A 4"], ...]:
        """The anchors of each level's first cell, xyxy in pixels, on the CPU."""
        return tuple(torch.tensor(boxes, dtype=torch.float32, device="cpu") for boxes in self._grid.base)

    def __call__(self, level_sizes: Sequence[tuple[int, int]], batch: ImageBatch) -> Priors:
        """The anchors of a batch; see :class:`~detcore.interfaces.PriorGenerator`. Not to be written into."""
        return self._grid(level_sizes, batch)

    def _check_count(self, name: str, values: tuple[object, ...] | None) -> None:
        if values is not None and len(values) != len(self.strides):
            raise ValueError(
                f"{name} should have one entry per level; got {len(values)} for {len(self.strides)} strides "
                f"{list(self.strides)}"
            )

    def _centers(self, offset: float, unit: str) -> tuple[tuple[float, float], ...]:
        if unit == "base_size":
            return tuple((offset * size, offset * size) for size in self.base_sizes)
        return tuple((offset * x, offset * y) for x, y in self.strides)

    def _base(self, size: float, center: tuple[float, float]) -> tuple[BaseBox, ...]:
        """The anchors of the first cell, rounded to float32 at each step.

        Assigners compare overlaps for equality, so that anchors of one shape must be equal to the last bit.
        """
        heights = torch.tensor(self.ratios, dtype=torch.float32, device="cpu").sqrt()
        scales = torch.tensor(self.scales, dtype=torch.float32, device="cpu")
        sides = []
        for factors in (1 / heights, heights):
            by_ratio, by_scale = size * factors[:, None] * scales, size * scales[:, None] * factors
            sides.append((by_ratio if self.scale_major else by_scale).flatten())
        half = torch.stack(sides, dim=-1) * 0.5
        middle = torch.tensor(center, dtype=torch.float32, device="cpu")
        boxes = torch.cat((middle - half, middle + half), dim=-1)
        return tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in boxes.tolist())


def _scales(
    scales: tuple[float, ...] | None, octave_base_scale: float | None, scales_per_octave: int | None
) -> tuple[float, ...]:
    octave = {"octave_base_scale": octave_base_scale, "scales_per_octave": scales_per_octave}
    given = [f"{name}={value}" for name, value in octave.items() if value is not None]
    if scales is not None and given:
        raise ValueError(
            f"scales={list(scales)} and {' and '.join(given)} exclude each other; leave out one of them"
        )
    if scales is not None:
        return scales
    if octave_base_scale is None or scales_per_octave is None:
        missing = [name for name, value in octave.items() if value is None]
        raise ValueError(
            f"{' and '.join(missing)} missing; give scales, or octave_base_scale and scales_per_octave"
        )
    return tuple(octave_base_scale * 2 ** (i / scales_per_octave) for i in range(scales_per_octave))
