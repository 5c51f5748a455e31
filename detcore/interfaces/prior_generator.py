"""The interface of prior generators."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from detcore.component import Component
from detcore.structures import ImageBatch, Priors


class PriorGenerator(Component):
    """Feature map sizes to reference boxes or points.

    A generator declares ``strides: tuple[int | tuple[int, int], ...] = wired(may_override=True)``; a pair is (x, y).

    Invariants: priors are ordered by level, then row-major over y and x, then within the cell;
    ``len(priors) == sum(h * w * per_cell)``; ``priors.levels`` describes exactly that grid.
    """

    kind: ClassVar[str] = "prior_generators"

    #: Priors per cell, by level.
    num_per_cell: tuple[int, ...]

    @abstractmethod
    def __call__(self, level_sizes: Sequence[tuple[int, int]], batch: ImageBatch) -> Priors:
        """The priors of a batch.

        Args:
            level_sizes: (h, w) in cells, by level.
            batch: Gives the device and, by ``padded_sizes``, where priors are valid.

        Raises:
            ValueError: The number of levels is not that of the strides.
        """
