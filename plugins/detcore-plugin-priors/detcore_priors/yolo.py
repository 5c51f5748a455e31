"""Anchors of given sizes around the middle of every cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from detcore.component import wired
from detcore.interfaces import PriorGenerator
from detcore.structures import ImageBatch, Priors
from detcore_priors.grid import BaseBox, PriorGrid, stride_pairs
from detcore_priors.shapes import around, as_base, base_tensors, check_count

_Step = Annotated[int, Field(ge=1)]
_Side = Annotated[float, Field(gt=0)]


class YOLOAnchorGenerator(PriorGenerator):
    """Anchors whose widths and heights are given, around the middle of every cell.

    The sizes are commonly found by clustering those of a dataset's objects ("YOLO9000", arXiv 1612.08242; "YOLOv3: An
    Incremental Improvement", arXiv 1804.02767).

    Args:
        base_sizes: By level, in the order of the pyramid, (width, height) in pixels of the anchors of a cell.
        strides: Pixels per cell, by level; a pair is (x, y).

    Raises:
        ConfigError: The number of levels of the sizes is not that of the strides.
    """

    def __init__(
        self,
        *,
        base_sizes: Annotated[
            tuple[Annotated[tuple[tuple[_Side, _Side], ...], Field(min_length=1)], ...], Field(min_length=1)
        ],
        strides: Annotated[tuple[_Step | tuple[_Step, _Step], ...], Field(min_length=1)] = wired(
            may_override=True
        ),
    ) -> None:
        self.strides = stride_pairs(strides)
        check_count("base_sizes", base_sizes, self.strides)
        self.base_sizes = base_sizes
        base = [_base(sizes, (x / 2, y / 2)) for sizes, (x, y) in zip(base_sizes, self.strides, strict=True)]
        self._grid = PriorGrid(base, self.strides, type(self).__name__)
        self.num_per_cell = tuple(len(boxes) for boxes in base)

    @property
    def base_anchors(self) -> tuple[Float[Tensor, "A 4"], ...]:
        """The anchors of each level's first cell, xyxy in pixels, on the CPU."""
        return base_tensors(self._grid.base)

    def __call__(self, level_sizes: Sequence[tuple[int, int]], batch: ImageBatch) -> Priors:
        """The anchors of a batch; see :class:`~detcore.interfaces.PriorGenerator`. Not to be written into."""
        return self._grid(level_sizes, batch)


def _base(sizes: Sequence[tuple[float, float]], center: tuple[float, float]) -> tuple[BaseBox, ...]:
    widths, heights = torch.tensor(sizes, dtype=torch.float32, device="cpu").unbind(-1)
    return as_base(around(center, widths, heights))
