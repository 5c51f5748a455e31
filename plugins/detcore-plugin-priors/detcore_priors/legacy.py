"""Anchors of MMDetection 1.x."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from detcore.component import wired
from detcore.interfaces import PriorGenerator
from detcore.structures import ImageBatch, Priors
from detcore_priors.anchors import AnchorGenerator
from detcore_priors.grid import PriorGrid, stride_pairs
from detcore_priors.shapes import anchor_sides, around, as_base, base_tensors, check_count

_Positive = Annotated[float, Field(gt=0)]
_Step = Annotated[int, Field(ge=1)]


class LegacyAnchorGenerator(PriorGenerator):
    """Anchors as :class:`AnchorGenerator` makes them, in the pixels of MMDetection 1.x.

    There the last pixel belongs to a box: sides are one pixel less, and corners are rounded to whole pixels (halves to
    the even one). For models that were trained so, together with ``LegacyDeltaXYWHBBoxCoder``.

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
        center_offset: Where the centre lies, as a fraction of the base size less one pixel. 0.5 is what models of the
            time were trained with; MMDetection's default is 0.
        strides: Pixels per cell, by level; a pair is (x, y).

    Raises:
        ConfigError: Not exactly one way of giving scales; a number of base sizes or centres that is not the
            number of strides.
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
        center_offset: Annotated[float, Field(ge=0, le=1)] = 0.5,
        strides: Annotated[tuple[_Step | tuple[_Step, _Step], ...], Field(min_length=1)] = wired(
            may_override=True
        ),
    ) -> None:
        self.strides = stride_pairs(strides)
        self.plain = AnchorGenerator(
            ratios=ratios, scales=scales, octave_base_scale=octave_base_scale,
            scales_per_octave=scales_per_octave, base_sizes=base_sizes, scale_major=scale_major,
            centers=((0.0, 0.0),) * len(self.strides), strides=strides,
        )  # fmt: skip
        check_count("centers", centers, self.strides)
        self.centers = centers or tuple((center_offset * (size - 1),) * 2 for size in self.plain.base_sizes)
        base = [
            as_base(around(center, widths - 1, heights - 1).round())
            for center, (widths, heights) in zip(self.centers, anchor_sides(self.plain), strict=True)
        ]
        self._grid = PriorGrid(base, self.strides, type(self).__name__)
        self.num_per_cell = tuple(len(boxes) for boxes in base)

    @property
    def base_anchors(self) -> tuple[Float[Tensor, "A 4"], ...]:
        """The anchors of each level's first cell, xyxy in pixels, on the CPU."""
        return base_tensors(self._grid.base)

    def __call__(self, level_sizes: Sequence[tuple[int, int]], batch: ImageBatch) -> Priors:
        """The anchors of a batch; see :class:`~detcore.interfaces.PriorGenerator`. Not to be written into."""
        return self._grid(level_sizes, batch)
