"""Points: one location in every cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from detcore.component import wired
from detcore.interfaces import PriorGenerator
from detcore.structures import ImageBatch, Priors
from detcore_priors.grid import PriorGrid, stride_pairs

_Step = Annotated[int, Field(ge=1)]


class PointGenerator(PriorGenerator):
    """One point in every cell of every level, as a box without extent.

    As in "FCOS: Fully Convolutional One-Stage Object Detection" (arXiv 1904.01355). What MMDetection calls
    ``MlvlPointGenerator``; the stride that it appends to a point on request is in ``Priors.strides`` here.

    Args:
        offset: Where in its cell the point lies: 0 at the top left corner, 0.5 in the middle.
        strides: Pixels per cell, by level; a pair is (x, y).
    """

    def __init__(
        self,
        *,
        offset: Annotated[float, Field(ge=0, le=1)] = 0.5,
        strides: Annotated[tuple[_Step | tuple[_Step, _Step], ...], Field(min_length=1)] = wired(
            may_override=True
        ),
    ) -> None:
        self.strides = stride_pairs(strides)
        self.offset = offset
        base = [[(offset * x, offset * y, offset * x, offset * y)] for x, y in self.strides]
        self._grid = PriorGrid(base, self.strides, type(self).__name__)
        self.num_per_cell = (1,) * len(self.strides)

    def __call__(self, level_sizes: Sequence[tuple[int, int]], batch: ImageBatch) -> Priors:
        """The points of a batch; see :class:`~detcore.interfaces.PriorGenerator`. Not to be written into."""
        return self._grid(level_sizes, batch)
