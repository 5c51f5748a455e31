"""The usual data of a run: a training set and a validation set."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from detcore_data import DatasetFacts, with_transforms
from pydantic import Field

from detcore.component import Part, make
from detcore.errors import DataError
from detcore.interfaces import Dataset, Transform
from detcore.structures import ClassMap
from detcore_train.interfaces import BatchGrouping, DataModule, EpochOrder
from detcore_train.loader import EpochBatches, EpochLoader, Shard, ShardedBatches

Workers = Annotated[int, Field(ge=0)]


class DetectionData(DataModule):
    """A training set and a validation set that share their root folder and their classes.

    Args:
        root: Folder that the datasets' paths are relative to; given to every dataset that declares ``root``.
            A relative path starts in the current folder.
        train: The training set; may be left out where nothing is trained.
        val: The validation set; without it nothing is evaluated.
        classes: Names of the classes to use, in the order of their labels; those of the training set where
            None. Given to every dataset that declares ``classes``.
        batch_size: Images per process and optimizer step of training.
        val_batch_size: Images per process and step of validation; ``batch_size`` where None.
        workers: Processes per loader that read and transform images; 0 does it in the training process.
        shuffle: Whether the training set is visited in a new random order each epoch.
        drop_last: Whether the last training batch of an epoch is left out where it is smaller than the
            others.
        order: Which images an epoch has, in place of a random order of all of them (``ClassBalancedOrder``).
        grouping: Which of them share a batch (``AspectRatioGrouping``).
        final_transforms: Transforms of the training set in the last ``final_epochs`` epochs, in place of its own:
            how strong augmentation ends before the run does. () is none at all.
        final_epochs: How many epochs these are.

    Raises:
        DataError: A dataset cannot be read, the validation set's classes are not the training set's, or the
            training set cannot change its transforms.
    """

    train: Dataset | None
    val: Dataset | None

    def __init__(
        self,
        *,
        root: Path | None = None,
        train: Part[Dataset] | None = None,
        val: Part[Dataset] | None = None,
        classes: tuple[str, ...] | None = None,
        batch_size: Annotated[int, Field(ge=1)] = 2,
        val_batch_size: Annotated[int, Field(ge=1)] | None = None,
        workers: Workers = 2,
        shuffle: bool = True,
        drop_last: bool = False,
        order: Part[EpochOrder] | None = None,
        grouping: Part[BatchGrouping] | None = None,
        final_transforms: tuple[Part[Transform], ...] | None = None,
        final_epochs: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        if train is None and val is None:
            raise ValueError("needs a training set, a validation set, or both; got neither 'train' nor 'val'")
        if order is not None and not shuffle:
            raise ValueError(
                "shuffle=False has no effect, since order decides the order; leave one of them out"
            )
        if (final_transforms is None) != (final_epochs == 0):
            raise ValueError(
                "final_transforms and final_epochs belong together: give the transforms and a number of epochs above "
                f"0, or neither; got final_epochs={final_epochs}"
            )
        self.order, self.grouping, self.final_epochs = make(order), make(grouping), final_epochs
        self.final_transforms = (
            None if final_transforms is None else tuple(make(transform) for transform in final_transforms)
        )
        self.root, self.classes = root, classes
        self.batch_size, self.workers = batch_size, workers
        self.val_batch_size = val_batch_size or batch_size
        self.shuffle, self.drop_last = shuffle, drop_last
        shared: dict[str, Any] = {} if root is None else {"root": root}
        if classes is not None:
            shared["classes"] = classes
        self.train = make(train, **shared)
        if self.train is not None:
            shared["classes"] = self.train.class_map.names
        self.val = make(val, **shared)
        if self.train is not None and self.val is not None:
            _check_same_classes(self.train.class_map, self.val.class_map)
        if self.train is not None and self.final_transforms is not None:
            with_transforms(self.train, self.final_transforms)  # finds out now whether it can

    @property
    def class_map(self) -> ClassMap:
        """See :class:`~detcore_train.interfaces.DataModule`."""
        return _one_of(self.train, self.val).class_map

    def train_loader(
        self,
        seed: int,
        shard: Shard = Shard(),
        *,
        pin_memory: bool = False,
        position: Callable[[], int] | None = None,
    ) -> EpochLoader:
        """See :class:`~detcore_train.interfaces.DataModule`.

        Raises:
            DataError: There is no training set, or it has too few images for one batch.
        """
        if self.train is None:
            raise DataError("there is no training set: give data.train")
        batches = self._batches(self.train, seed, shard)
        if batches.per_epoch == 0:
            whole = self.batch_size * shard.count
            why = (
                f"too few for one batch of {whole} with drop_last"
                if self.drop_last
                else "nothing to train on"
            )
            raise DataError(f"the training set has {len(self.train)} images: {why}")
        return EpochLoader(
            self.train,
            batches,
            seed=seed,
            workers=self.workers,
            pin_memory=pin_memory,
            position=position,
            final=None
            if self.final_transforms is None
            else with_transforms(self.train, self.final_transforms),
            final_epochs=self.final_epochs,
        )

    def _batches(self, train: Dataset, seed: int, shard: Shard) -> EpochBatches:
        facts, order, grouping = DatasetFacts(train), self.order, self.grouping
        return EpochBatches(
            len(train) if order is None else order.length(facts),
            self.batch_size,
            seed,
            shard,
            shuffle=self.shuffle,
            drop_last=self.drop_last,
            choose=None if order is None else partial(order.order, facts),
            group=None
            if grouping is None
            else lambda images, size, generator: grouping.group(images, facts, size, generator),
        )

    def val_loader(self, shard: Shard = Shard(), *, pin_memory: bool = False) -> EpochLoader:
        """See :class:`~detcore_train.interfaces.DataModule`.

        Raises:
            DataError: There is no validation set.
        """
        if self.val is None:
            raise DataError("there is no validation set: give data.val")
        batches = ShardedBatches(len(self.val), self.val_batch_size, shard)
        return EpochLoader(self.val, batches, workers=self.workers, pin_memory=pin_memory)


def _one_of(train: Dataset | None, val: Dataset | None) -> Dataset:
    dataset = train if train is not None else val
    if dataset is None:
        raise DataError("there is neither a training set nor a validation set")
    return dataset


def _check_same_classes(train: ClassMap, val: ClassMap) -> None:
    if train.names == val.names:
        return
    missing = [name for name in train.names if name not in val.names]
    extra = [name for name in val.names if name not in train.names]
    parts = [f"only in the training set: {', '.join(missing)}"] if missing else []
    parts += [f"only in the validation set: {', '.join(extra)}"] if extra else []
    detail = "; ".join(parts) or f"ordered {', '.join(train.names)} and {', '.join(val.names)}"
    raise DataError(
        f"the classes of training and validation set differ ({detail}); give those to use, in order, as "
        "data.classes"
    )
