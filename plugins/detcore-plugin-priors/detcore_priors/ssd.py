"""Anchors of SSD: squares of two sizes and rectangles of several shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from detcore.component import wired
from detcore.interfaces import PriorGenerator
from detcore.structures import ImageBatch, Priors
from detcore_priors.grid import BaseBox, PriorGrid, stride_pairs
from detcore_priors.shapes import around, as_base, base_tensors
from detcore_priors.ssd_sizes import cell_sides, size_ranges

_Step = Annotated[int, Field(ge=1)]
_Side = Annotated[float, Field(gt=0)]
_Share = Annotated[float, Field(gt=0, le=1)]


class SSDAnchorGenerator(PriorGenerator):
    """Anchors around the middle of every cell: two squares, and for each ratio r one of r and one of 1 / r.

    The squares have the level's minimum size and the geometric mean of its minimum and maximum; the others have the
    area of the smaller square. In a cell they come in the order smaller square, larger square, 1 / r, r, ...

    Sizes are given by ``min_sizes`` and ``max_sizes``, or follow from ``input_size`` and
    ``basesize_ratio_range``: those of the second to the last level grow evenly over the range, the first level
    has a smaller one of its own.

    Liu et al., "SSD: Single Shot MultiBox Detector" (arXiv 1512.02325).

    Args:
        ratios: By level, height divided by width, each with its inverse.
        min_sizes: By level, side of the smaller square in pixels.
        max_sizes: By level, the size that the smaller square of the next level has, in pixels.
        basesize_ratio_range: Smallest and largest size as fractions of the input. At 300 pixels the smallest is 0.15
            (COCO) or 0.2 (VOC), at 512 pixels 0.1 (COCO) or 0.15 (VOC). Unused with ``min_sizes``.
        input_size: Side of the input in pixels, 300 or 512; unused with ``min_sizes``.
        scale_major: With True the cell's anchors are those that MMDetection gives where its parameter is left at its
            default: by an oversight every shape but the first square comes from the wrong place in the list.
        strides: Pixels per cell, by level; a pair is (x, y). Give them: SSD's do not follow from its pyramid.

    Raises:
        ConfigError: A number of entries is not that of the strides; only one of minimum and maximum sizes is given, or
            a maximum is not above its minimum; no sizes are known for ``input_size`` and the range.
    """

    def __init__(
        self,
        *,
        ratios: Annotated[tuple[tuple[_Side, ...], ...], Field(min_length=1)],
        min_sizes: tuple[_Side, ...] | None = None,
        max_sizes: tuple[_Side, ...] | None = None,
        basesize_ratio_range: tuple[_Share, _Share] = (0.15, 0.9),
        input_size: Annotated[int, Field(ge=1)] = 300,
        scale_major: bool = False,
        strides: Annotated[tuple[_Step | tuple[_Step, _Step], ...], Field(min_length=1)] = wired(
            may_override=True
        ),
    ) -> None:
        self.strides = stride_pairs(strides)
        self.ratios = ratios
        self.sizes = size_ranges(
            min_sizes, max_sizes, ratios, self.strides, input_size=input_size, limits=basesize_ratio_range
        )
        levels = zip(self.sizes, ratios, self.strides, strict=True)
        base = [_base(size, own, (x / 2, y / 2), scale_major) for size, own, (x, y) in levels]
        self._grid = PriorGrid(base, self.strides, type(self).__name__)
        self.num_per_cell = tuple(len(boxes) for boxes in base)

    @property
    def base_anchors(self) -> tuple[Float[Tensor, "A 4"], ...]:
        """The anchors of each level's first cell, xyxy in pixels, on the CPU."""
        return base_tensors(self._grid.base)

    def __call__(self, level_sizes: Sequence[tuple[int, int]], batch: ImageBatch) -> Priors:
        """The anchors of a batch; see :class:`~detcore.interfaces.PriorGenerator`. Not to be written into."""
        return self._grid(level_sizes, batch)


def _base(
    size: tuple[float, float], ratios: tuple[float, ...], center: tuple[float, float], scale_major: bool
) -> tuple[BaseBox, ...]:
    return as_base(around(center, *cell_sides(size, ratios, scale_major=scale_major)))
