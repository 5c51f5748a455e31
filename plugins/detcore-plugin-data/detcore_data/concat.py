"""Several datasets as one."""

from __future__ import annotations

import copy
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Annotated

from pydantic import Field

from detcore.component import Part, make, wired
from detcore.errors import DataError
from detcore.interfaces import Dataset, Example, Transform
from detcore.structures import ClassMap
from detcore_data.joined import id_shifts, join_records
from detcore_data.mixing import apply_transforms
from detcore_data.records import Records
from detcore_data.switch import with_transforms


class ConcatDataset(Dataset):
    """Several datasets, one after another, as one: many annotation files for one training set.

    All of them need the same classes in the same order; ``classes`` sees to it. Their ids in the files may differ:
    ``class_map`` has the first one's. Where two datasets share an image id, the ids of later datasets are raised,
    so that each image has one of its own; evaluation then works as on a single dataset.

    Args:
        root: Given to every dataset that declares ``root``.
        datasets: The datasets.
        classes: Given to every dataset that declares ``classes``.
        transforms: Applied to every example after its own dataset's transforms, in order. Transforms that mix
            images draw from all datasets.

    Raises:
        DataError: The datasets differ in their classes, or in whether they have masks.
    """

    def __init__(
        self,
        *,
        root: Path | None = wired(None, may_override=True),
        datasets: Annotated[tuple[Part[Dataset], ...], Field(min_length=1)],
        classes: tuple[str, ...] | None = wired(None, may_override=True),
        transforms: tuple[Part[Transform], ...] = (),
    ) -> None:
        shared = {"root": root, "classes": classes}
        given = {name: value for name, value in shared.items() if value is not None}
        self.root, self.classes = root, classes
        self.datasets: tuple[Dataset, ...] = tuple(make(dataset, **given) for dataset in datasets)
        self.transforms = tuple(make(transform) for transform in transforms)
        _check_classes([dataset.class_map for dataset in self.datasets])
        self.class_map = self.datasets[0].class_map
        self._ends = list(accumulate(len(dataset) for dataset in self.datasets))
        self._shifts = id_shifts(self.datasets)
        #: What all files have, without the images; None where a dataset keeps no records.
        self.records: Records | None = join_records(self.datasets, self._shifts)
        _check_masks(self.datasets)

    def __len__(self) -> int:
        """Number of images in all datasets."""
        return self._ends[-1]

    def __getitem__(self, index: int) -> Example:
        """See :class:`~detcore.interfaces.Dataset`."""
        return apply_transforms(self._read, range(len(self))[index], len(self), self.transforms)

    def with_transforms(self, transforms: tuple[Transform, ...]) -> ConcatDataset:
        """The same images with other transforms, in place of the datasets' own and of those after them."""
        other = copy.copy(self)
        other.datasets = tuple(with_transforms(dataset, ()) for dataset in self.datasets)
        other.transforms = tuple(transforms)
        return other

    def _read(self, index: int) -> Example:
        member = bisect_right(self._ends, index)
        dataset = self.datasets[member]
        example = dataset[index - self._ends[member] + len(dataset)]
        if self._shifts[member]:
            example = Example(**{**example, "image_id": example["image_id"] + self._shifts[member]})
        return example


def _check_classes(maps: list[ClassMap]) -> None:
    for number, other in enumerate(maps[1:], start=1):
        if other.names == maps[0].names:
            continue
        lacking = [name for name in maps[0].names if name not in other.names]
        extra = [name for name in other.names if name not in maps[0].names]
        parts = [f"datasets[{number}] lacks {', '.join(lacking)}"] if lacking else []
        parts += [f"datasets[{number}] has also {', '.join(extra)}"] if extra else []
        order = f"ordered {', '.join(maps[0].names)} and {', '.join(other.names)}"
        raise DataError(
            f"the classes of datasets[0] and datasets[{number}] differ ({'; '.join(parts) or order}); give those "
            "to use, in order, as classes"
        )


def _check_masks(datasets: tuple[Dataset, ...]) -> None:
    known = [records for d in datasets if isinstance(records := getattr(d, "records", None), Records)]
    masked = [records.segmentations is not None for records in known]
    if any(masked) and not all(masked):
        raise DataError(
            f"datasets[{masked.index(False)}] has no masks, but datasets[{masked.index(True)}] has; set "
            "with_masks of all of them to the same value"
        )
