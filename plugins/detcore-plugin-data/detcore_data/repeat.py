"""A dataset several times over."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated

from pydantic import Field

from detcore.component import Part, make, wired
from detcore.interfaces import Dataset, Example, Transform
from detcore_data.records import Records
from detcore_data.switch import with_transforms


class RepeatDataset(Dataset):
    """A dataset several times over, for long epochs on little data, or to give one of several datasets weight.

    Random transforms draw anew for each repetition. Evaluation counts every image once.

    Args:
        root: Given to the dataset if it declares ``root``.
        dataset: The dataset.
        times: How often each image comes in an epoch.
        classes: Given to the dataset if it declares ``classes``.
    """

    def __init__(
        self,
        *,
        root: Path | None = wired(None, may_override=True),
        dataset: Part[Dataset],
        times: Annotated[int, Field(ge=1)],
        classes: tuple[str, ...] | None = wired(None, may_override=True),
    ) -> None:
        shared = {"root": root, "classes": classes}
        given = {name: value for name, value in shared.items() if value is not None}
        self.root, self.classes, self.times = root, classes, times
        self.dataset = make(dataset, **given)
        self.class_map = self.dataset.class_map
        found = getattr(self.dataset, "records", None)
        #: What the files have, once; None where the dataset keeps no records.
        self.records: Records | None = found if isinstance(found, Records) else None

    def __len__(self) -> int:
        """Number of images, repetitions included."""
        return len(self.dataset) * self.times

    def __getitem__(self, index: int) -> Example:
        """See :class:`~detcore.interfaces.Dataset`."""
        return self.dataset[range(len(self))[index] % len(self.dataset)]

    def with_transforms(self, transforms: tuple[Transform, ...]) -> RepeatDataset:
        """The same images with other transforms."""
        other = copy.copy(self)
        other.dataset = with_transforms(self.dataset, transforms)
        return other
