"""Batches in an order that depends on seed and epoch only, from any point of an epoch on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detcore_data import EpochSeeded, ExampleBatch, collate
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from detcore.errors import DataError
from detcore.interfaces import Dataset, Example
from detcore.structures import ClassMap

#: A position in the dataset, or such a position and the number of its repetition in the epoch.
Item = int | tuple[int, int]


@dataclass(frozen=True)
class Shard:
    """One of several processes that share the data.

    Args:
        rank: Which one, from 0.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1


class EpochBatches:
    """The batches of indices of one epoch at a time.

    A global batch of ``batch_size * shard.count`` images is cut into consecutive pieces, one per process, so
    that several processes together see the batches that one process with the whole batch size sees. The last,
    smaller batch of an epoch is dealt out evenly; where it has fewer images than there are processes, images
    from the
    epoch's beginning fill it up, since every process has to take every step.

    Args:
        length: Number of images.
        batch_size: Images per process and step.
        seed: Of the order.
        shard: This process.
        shuffle: Whether the order is random; by index otherwise.
        drop_last: Whether the last batch is left out where it is smaller than the others.
        choose: Gives the images of an epoch, in order, in place of all of them; there are ``length``. Called with
            the epoch and a generator that is seeded for it.
        group: Gives the same images in another order, of which every so many in a row make a batch. Called with
            the order, the number of images in a batch of all processes, and the generator.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        shard: Shard,
        *,
        shuffle: bool,
        drop_last: bool,
        choose: Callable[[int, torch.Generator], Sequence[int]] | None = None,
        group: Callable[[Sequence[int], int, torch.Generator], Sequence[int]] | None = None,
    ) -> None:
        self.length, self.batch_size, self.seed, self.shard = length, batch_size, seed, shard
        self.shuffle, self.drop_last = shuffle, drop_last
        self._choose, self._group = choose, group
        self.epoch = 0
        self.skip = 0

    @property
    def per_epoch(self) -> int:
        """Number of batches in an epoch, the same in every process."""
        whole = self.batch_size * self.shard.count
        return self.length // whole if self.drop_last else -(-self.length // whole)

    def order(self, epoch: int) -> list[int]:
        """The indices of an epoch, in their order over all processes.

        Raises:
            DataError: An order or a grouping gives other images than it should.
        """
        digest = hashlib.blake2b(f"order/{self.seed}/{epoch}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
        if self._choose is not None:
            order = list(self._choose(epoch, generator))
            if len(order) != self.length:
                raise DataError(
                    f"the order of epoch {epoch} has {len(order)} images, but its length() is {self.length}"
                )
        elif self.shuffle:
            order = torch.randperm(self.length, generator=generator).tolist()
        else:
            order = list(range(self.length))
        if self._group is None:
            return order
        grouped = list(self._group(order, self.batch_size * self.shard.count, generator))
        if sorted(grouped) != sorted(order):
            raise DataError(
                f"the grouping of epoch {epoch} has other images than the order that it was given"
            )
        return grouped

    def __len__(self) -> int:
        """Number of batches still to come in the epoch."""
        return self.per_epoch - self.skip

    def __iter__(self) -> Iterator[list[Item]]:
        """This process's part of each batch, from the ``skip``-th on; repetitions are numbered."""
        order = _number_repetitions(self.order(self.epoch), self._choose is not None)
        whole, (rank, count) = self.batch_size * self.shard.count, (self.shard.rank, self.shard.count)
        for number in range(self.skip, self.per_epoch):
            batch = order[number * whole : (number + 1) * whole]
            if len(batch) < count:
                batch += [order[i % len(order)] for i in range(count - len(batch))]
            low, high = len(batch) * rank // count, len(batch) * (rank + 1) // count
            yield batch[low:high]


def _number_repetitions(order: Sequence[int], any_repeated: bool) -> list[Item]:
    """The first occurrence of a position as it is, each later one with its number."""
    if not any_repeated:
        return list(order)
    seen: Counter[int] = Counter()
    items: list[Item] = []
    for index in order:
        items.append((index, seen[index]) if seen[index] else index)
        seen[index] += 1
    return items


class ShardedBatches:
    """Every index exactly once over all processes, in order; processes may differ in their number of batches.

    Args:
        length: Number of images.
        batch_size: Images per batch.
        shard: This process.
    """

    def __init__(self, length: int, batch_size: int, shard: Shard) -> None:
        self.indices = range(shard.rank, length, shard.count)
        self.batch_size = batch_size

    def __len__(self) -> int:
        """Number of batches of this process."""
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of this process."""
        for start in range(0, len(self.indices), self.batch_size):
            yield list(self.indices[start : start + self.batch_size])


class TwoPhases:
    """A dataset whose transforms change during the run; what its items are is said once for all workers.

    Args:
        usual: The dataset.
        final: The same images with other transforms.
    """

    def __init__(self, usual: Dataset, final: Dataset) -> None:
        self.usual, self.final = usual, final
        self._is_final = torch.zeros(1, dtype=torch.bool).share_memory_()  # type: ignore[no-untyped-call]

    @property
    def class_map(self) -> ClassMap:
        """Names and dataset ids of the classes."""
        return self.usual.class_map

    def set_final(self, final: bool) -> None:
        """Says which of the two the following items are of."""
        self._is_final[0] = final

    def __len__(self) -> int:
        """Number of images."""
        return len(self.usual)

    def __getitem__(self, index: int) -> Example:
        """The item of the present phase."""
        return self.final[index] if bool(self._is_final[0]) else self.usual[index]


class EpochLoader:
    """A data loader that begins wherever in the run its ``position`` says.

    Args:
        dataset: The images.
        batches: Which indices make a batch.
        seed: Of augmentation.
        workers: Processes that read and transform; 0 does it in this one.
        pin_memory: Whether batches are put into page-locked memory.
        position: Batches that were trained on before, in all epochs; asked at the begin of each pass.
        final: The same images with the transforms of the last epochs; None where these do not change.
        final_epochs: How many epochs these are. Counted from the end of the run, which ``epochs`` tells.
    """

    #: Epochs in the whole run; None where nobody said.
    epochs: int | None = None

    def __init__(
        self,
        dataset: Dataset,
        batches: EpochBatches | ShardedBatches,
        *,
        seed: int = 0,
        workers: int = 0,
        pin_memory: bool = False,
        position: Callable[[], int] | None = None,
        final: Dataset | None = None,
        final_epochs: int = 0,
    ) -> None:
        self._phases = None if final is None else TwoPhases(dataset, final)
        self.final_epochs = final_epochs
        self.dataset = EpochSeeded(self._phases or dataset, seed)  # type: ignore[arg-type]
        self.batches = batches
        self.position = position
        self._loader: DataLoader[Any] = DataLoader(
            self.dataset,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=workers,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            # the loader draws a seed for its workers from it; ours come from (seed, epoch, index) anyway
            generator=torch.Generator().manual_seed(seed),
        )

    def __len__(self) -> int:
        """Number of batches in a whole epoch."""
        return self.batches.per_epoch if isinstance(self.batches, EpochBatches) else len(self.batches)

    def __iter__(self) -> Iterator[ExampleBatch]:
        """The batches of the present epoch that were not trained on yet."""
        if isinstance(self.batches, EpochBatches):
            done = self.position() if self.position else 0
            self.batches.epoch, self.batches.skip = divmod(done, self.batches.per_epoch)
            self.dataset.set_epoch(self.batches.epoch)
            if self._phases is not None and self.epochs is not None:
                self._phases.set_final(self.batches.epoch >= self.epochs - self.final_epochs)
        return iter(self._loader)

    def close(self) -> None:
        """Ends the reading processes; the next pass starts new ones."""
        iterator, self._loader._iterator = self._loader._iterator, None
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            iterator._shutdown_workers()

    # The trainer asks loaders that can continue within an epoch for these; the position is in the run's own
    # state.
    def state_dict(self) -> dict[str, int]:
        """Nothing: see ``position``."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing: see ``position``."""
