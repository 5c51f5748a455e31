"""Images of like shape share a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from detcore_data import DatasetFacts
from pydantic import Field

from detcore_train.interfaces import BatchGrouping

Ratio = Annotated[float, Field(gt=0)]


class AspectRatioGrouping(BatchGrouping):
    """Batches of images of like shape, which need less padding.

    Goes through the order and makes a batch whenever a group has enough images, as the reference's
    ``AspectRatioBatchSampler`` does. What is left at the end of the epoch makes batches across groups, neighbours in
    shape together; where the last batch is too small it is left out with ``drop_last``. Shapes are those of the
    files, before any transform.

    Args:
        boundaries: Ratios of width to height between groups, rising; (1.0,) has upright images in one group, square
            and wide ones in the other.
    """

    def __init__(self, *, boundaries: Annotated[tuple[Ratio, ...], Field(min_length=1)] = (1.0,)) -> None:
        if list(boundaries) != sorted(set(boundaries)):
            raise ValueError(f"boundaries should rise, got {boundaries}")
        self.boundaries = boundaries

    def group(
        self, order: Sequence[int], facts: DatasetFacts, batch_size: int, generator: torch.Generator
    ) -> list[int]:
        """See :class:`~detcore_train.interfaces.BatchGrouping`."""
        height, width = facts.sizes.double().unbind(1)
        boundaries = torch.tensor(self.boundaries, dtype=torch.float64)
        group_of = torch.bucketize(width / height, boundaries, right=True).tolist()
        waiting: list[list[int]] = [[] for _ in range(len(boundaries) + 1)]
        grouped: list[int] = []
        for index in order:
            group = waiting[group_of[index]]
            group.append(index)
            if len(group) == batch_size:
                grouped += group
                group.clear()
        return grouped + [index for group in waiting for index in group]
