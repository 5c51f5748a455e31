"""SSD's anchors of MMDetection 1.x."""

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


class LegacySSDAnchorGenerator(PriorGenerator):
    """Anchors as :class:`SSDAnchorGenerator` makes them, in the pixels of MMDetection 1.x.

    Sides are one pixel less, corners are rounded to whole pixels, and the middle of a cell is at (stride - 1) / 2.

    Args:
        ratios: By level, height divided by width, each with its inverse.
        min_sizes: By level, side of the smaller square in pixels.
        max_sizes: By level, the size that the smaller square of the next level has, in pixels.
        basesize_ratio_range: Smallest and largest size as fractions of the input; see :class:`SSDAnchorGenerator`.
        input_size: Side of the input in pixels, 300 or 512; unused with ``min_sizes``.
        scale_major: See :class:`SSDAnchorGenerator`.
        strides: Pixels per cell, by level; a pair is (x, y). Give them: SSD's do not follow from its pyramid.

    Raises:
        ConfigError: As :class:`SSDAnchorGenerator`.
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
        base = [_base(size, own, ((x - 1) / 2, (y - 1) / 2), scale_major) for size, own, (x, y) in levels]
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
    widths, heights = cell_sides(size, ratios, scale_major=scale_major)
    return as_base(around(center, widths - 1, heights - 1).round())
