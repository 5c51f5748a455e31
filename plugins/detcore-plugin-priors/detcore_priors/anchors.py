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
        scales: Factors on the base size. Either these, or ``octave_base_scale`` with ``scales_per_octave``, or
            ``sizes``.
        octave_base_scale: Smallest of the scales that divide one octave evenly.
        scales_per_octave: Number of scales in one octave: base * 2^(i / number).
        base_sizes: Side in pixels of the square with scale 1, by level; the (smaller) stride where omitted.
        sizes: Sides in pixels of the squares of each level, in place of base sizes times scales; as many in
            each level. torchvision's sizes are whole pixels, (32, 40, 50), (64, 80, 101), ..., which no
            common scales give.
        scale_major: Order within a cell: all scales of the first ratio, then of the next (True), or all
            ratios of the first scale, then of the next (False).
        centers: Centre (x, y) in pixels of the anchors of the first cell, by level; from ``center_offset``
            where omitted.
        center_offset: Where in its cell the centre lies: 0 at the top left corner, 0.5 in the middle.
        center_offset_unit: What ``center_offset`` is a fraction of: the stride in x and y, or the base size
            in both. They differ only for strides that differ in x and y, and for given ``base_sizes``;
            "base_size" is what MMDetection does, and puts the centres beside the middle of the cells.
        round_corners: Whether the corners of a cell's anchors are rounded to whole pixels (halves to the even
            one), as in torchvision.
        step: Distance of neighbouring cells' anchors: the stride, or the padded batch's size divided by the
            level's number of cells, rounded down ("image"). They differ in coarse levels, of sizes that are
            no multiple of the stride: there "image", which is what torchvision does, leaves cells and anchors
            apart.
        strides: Pixels per cell, by level; a pair is (x, y).

    Raises:
        ConfigError: Not exactly one way of giving scales; a number of sizes, base sizes or centres that is not
            the number of strides; centres together with an offset.
    """

    def __init__(
        self,
        *,
        ratios: Annotated[tuple[_Positive, ...], Field(min_length=1)],
        scales: Annotated[tuple[_Positive, ...], Field(min_length=1)] | None = None,
        octave_base_scale: _Positive | None = None,
        scales_per_octave: Annotated[int, Field(ge=1)] | None = None,
        base_sizes: tuple[_Positive, ...] | None = None,
        sizes: Annotated[tuple[tuple[_Positive, ...], ...], Field(min_length=1)] | None = None,
        scale_major: bool = True,
        centers: tuple[tuple[float, float], ...] | None = None,
        center_offset: Annotated[float, Field(ge=0, le=1)] = 0.0,
        center_offset_unit: Literal["stride", "base_size"] = "stride",
        round_corners: bool = False,
        step: Literal["stride", "image"] = "stride",
        strides: Annotated[tuple[_Step | tuple[_Step, _Step], ...], Field(min_length=1)] = wired(
            may_override=True
        ),
    ) -> None:
        self.strides = stride_pairs(strides)
        self.ratios = ratios
        self.scale_major, self.round_corners, self.step = scale_major, round_corners, step
        self._check_count("base_sizes", base_sizes)
        self._check_count("sizes", sizes)
        self.base_sizes = base_sizes or tuple(float(min(pair)) for pair in self.strides)
        if sizes is None:
            by_level = (_scales(scales, octave_base_scale, scales_per_octave),) * len(self.strides)
            units = self.base_sizes
        else:
            _check_alone(sizes, scales=scales, octave_base_scale=octave_base_scale,
                         scales_per_octave=scales_per_octave, base_sizes=base_sizes)  # fmt: skip
            by_level, units = sizes, (1.0,) * len(sizes)
        if centers is not None and center_offset != 0:
            raise ValueError(
                f"centers and center_offset={center_offset} both say where anchors lie; leave out one of them"
            )
        self._check_count("centers", centers)
        self.centers = centers or self._centers(center_offset, center_offset_unit)
        base = [self._base(*level) for level in zip(units, by_level, self.centers, strict=True)]
        self._grid = PriorGrid(base, self.strides, type(self).__name__)
        self.num_per_cell = tuple(len(boxes) for boxes in base)

    @property
    def base_anchors(self) -> tuple[Float[Tensor, "A 4"], ...]:
        """The anchors of each level's first cell, xyxy in pixels, on the CPU."""
        return tuple(torch.tensor(boxes, dtype=torch.float32, device="cpu") for boxes in self._grid.base)

    def __call__(self, level_sizes: Sequence[tuple[int, int]], batch: ImageBatch) -> Priors:
        """The anchors of a batch; see :class:`~detcore.interfaces.PriorGenerator`. Not to be written into."""
        steps = self._image_steps(level_sizes, batch) if self.step == "image" else None
        return self._grid(level_sizes, batch, steps)

    def _image_steps(
        self, level_sizes: Sequence[tuple[int, int]], batch: ImageBatch
    ) -> tuple[tuple[int, int], ...]:
        """Pixels per cell (x, y), by level, of which whole ones fit into the batch; the stride without cells."""
        height, width = batch.pixels.shape[-2:]
        return tuple(
            (width // w if w else x, height // h if h else y)
            for (h, w), (x, y) in zip(level_sizes, self.strides, strict=False)
        )

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

    def _base(
        self, size: float, scales: tuple[float, ...], center: tuple[float, float]
    ) -> tuple[BaseBox, ...]:
        """The anchors of the first cell, rounded to float32 at each step.

        Assigners compare overlaps for equality, so that anchors of one shape must be equal to the last bit.
        """
        heights = torch.tensor(self.ratios, dtype=torch.float32, device="cpu").sqrt()
        factors_of_size = torch.tensor(scales, dtype=torch.float32, device="cpu")
        sides = []
        for factors in (1 / heights, heights):
            by_ratio = size * factors[:, None] * factors_of_size
            by_scale = size * factors_of_size[:, None] * factors
            sides.append((by_ratio if self.scale_major else by_scale).flatten())
        half = torch.stack(sides, dim=-1) * 0.5
        middle = torch.tensor(center, dtype=torch.float32, device="cpu")
        boxes = torch.cat((middle - half, middle + half), dim=-1)
        boxes = boxes.round() if self.round_corners else boxes
        return tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in boxes.tolist())


def _check_alone(sizes: tuple[tuple[float, ...], ...], **others: object) -> None:
    """Checks that sizes are the only statement about sizes, and as many in each level."""
    given = [f"{name}={value}" for name, value in others.items() if value is not None]
    if given:
        raise ValueError(f"sizes={list(sizes)} and {' and '.join(given)} exclude each other; leave out one")
    if len({len(level) for level in sizes}) > 1:
        raise ValueError(f"sizes should have as many entries in each level, got {[len(s) for s in sizes]}")


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
