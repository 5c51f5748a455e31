"""Random transforms that depend on (seed, epoch, index) and on nothing else."""

from __future__ import annotations

import hashlib

import torch
import torch.utils.data

from detcore.interfaces import Dataset, Example
from detcore.structures import ClassMap
from detcore_data.generators import seeded_generators


class EpochSeeded(torch.utils.data.Dataset[Example]):
    """A dataset whose items, in an epoch, are the same in any worker, order, batch or number of processes.

    Around each item torch's global CPU generator is seeded from (seed, epoch, index), and afterwards put back
    as it was, so that reading data never changes the random numbers of the training itself. Transforms should
    draw from it; numpy's and Python's global generators are seeded likewise, for those that do not.

    Args:
        dataset: The dataset with the random transforms.
        seed: Seed of the run.
        epoch: The epoch to begin with.
    """

    def __init__(self, dataset: Dataset, seed: int, epoch: int = 0) -> None:
        self.dataset = dataset
        self.seed = seed
        # In shared memory, so that workers that outlive an epoch (persistent_workers=True) see the next one.
        self._epoch = torch.tensor([epoch], dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    @property
    def class_map(self) -> ClassMap:
        """Names and dataset ids of the classes."""
        return self.dataset.class_map

    @property
    def epoch(self) -> int:
        """The epoch that items are drawn for."""
        return int(self._epoch[0])

    def set_epoch(self, epoch: int) -> None:
        """Draws the following items for ``epoch``; call it before the data loader is iterated."""
        self._epoch[0] = epoch

    def __len__(self) -> int:
        """Number of images."""
        return len(self.dataset)

    def __getitem__(self, index: int | tuple[int, int]) -> Example:
        """The item, as (seed, epoch, index) decide.

        Args:
            index: Which item; with a number k, its k-th repetition in the epoch, for which transforms draw anew.

        Raises:
            DataError: The image is missing or cannot be decoded; names the file.
        """
        index, repetition = index if isinstance(index, tuple) else (index, 0)
        index = range(len(self.dataset))[index]  # -1 and the last index are the same item
        with seeded_generators(item_seed(self.seed, self.epoch, index, repetition)):
            return self.dataset[index]


def seeded(dataset: Dataset, seed: int) -> EpochSeeded:
    """The dataset with its random transforms drawn from (seed, epoch, index)."""
    return EpochSeeded(dataset, seed)


def item_seed(seed: int, epoch: int, index: int, repetition: int = 0) -> int:
    """A seed for one item: a hash, since generators seeded with neighbouring numbers give related streams."""
    text = f"{seed}/{epoch}/{index}" + (f"/{repetition}" if repetition else "")
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
