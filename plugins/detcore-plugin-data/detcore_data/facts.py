"""What is known of a dataset's items before they are read, for choosing and grouping them."""

from __future__ import annotations

import logging
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from detcore.errors import DataError
from detcore.interfaces import Dataset
from detcore_data.concat import ConcatDataset
from detcore_data.ground_truth import records_of
from detcore_data.records import Records
from detcore_data.repeat import RepeatDataset
from detcore_data.source import ExampleSource

logger = logging.getLogger(__name__)


class DatasetFacts:
    """Sizes and classes of a dataset's items (I of them), found out when they are asked for.

    Datasets that keep ``records`` are not read, and of images whose annotations do not say how large they are only
    the head of the file is. Of other datasets every item is read once.

    Args:
        dataset: The dataset.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._members: tuple[DatasetFacts, ...] = ()
        if isinstance(dataset, ConcatDataset):
            self._members = tuple(DatasetFacts(member) for member in dataset.datasets)
        elif isinstance(dataset, RepeatDataset):
            self._members = (DatasetFacts(dataset.dataset),) * dataset.times

    def __len__(self) -> int:
        """The number of items I."""
        return len(self.dataset)

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return len(self.dataset.class_map)

    @cached_property
    def sizes(self) -> Int[Tensor, "I 2"]:
        """(h, w) of each image as its file has it, before any transform.

        Raises:
            DataError: A file whose size the annotations do not tell is missing, or no image.
        """
        if self._members:
            return torch.cat([member.sizes for member in self._members])
        records, sizes = self._records, self._records.sizes.clone()
        for index in (sizes <= 0).any(-1).nonzero().flatten().tolist():
            source = getattr(self.dataset, "_source", None)
            if not isinstance(source, ExampleSource):
                file = records.files[index].decode()
                raise DataError(
                    f"{records.source}: the size of {file} is not known; it is needed to group images"
                )
            sizes[index] = torch.tensor(source.reader.size(records.files[index].decode()))
        return sizes

    @cached_property
    def present(self) -> Int[Tensor, "P 2"]:
        """(item, label) for each class that an item has objects of, each pair once; regions to ignore do not count."""
        if self._members:
            first, parts = 0, []
            for member in self._members:
                parts.append(member.present + torch.tensor([first, 0]))
                first += len(member)
            return torch.cat(parts)
        annotations = self._records.annotations
        counted = ~annotations.ignore & ~annotations.any_class
        pairs = torch.stack((self._records.image_of, annotations.labels), dim=1)
        return torch.unique(pairs[counted], dim=0)  # type: ignore[no-any-return]

    @cached_property
    def _records(self) -> Records:
        if not isinstance(getattr(self.dataset, "records", None), Records):
            logger.info("%s keeps no records: every item is read once", type(self.dataset).__name__)
        with torch.random.fork_rng(devices=[]):
            records = records_of(self.dataset)
        if len(records) != len(self):
            raise DataError(
                f"{type(self.dataset).__name__} has {len(self)} items, but its records are of {len(records)} images"
            )
        return records
