"""The interfaces of what a training run is made of beside the detector."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from detcore_data import DatasetFacts
from torch import Tensor, nn

from detcore.component import Component
from detcore.interfaces import Dataset, Detector
from detcore.structures import ClassMap
from detcore_train.loader import EpochLoader, Shard


class Optimizer(Component):
    """Makes torch's optimizer for a detector."""

    kind: ClassVar[str] = "optimizers"

    @abstractmethod
    def build(self, model: Detector, *, lr_scale: float = 1.0) -> torch.optim.Optimizer:
        """The optimizer over all trainable parameters, each in exactly one group.

        Args:
            model: What is trained.
            lr_scale: Factor on every learning rate (the linear rule for other batch sizes).
        """


@dataclass(frozen=True)
class Progress:
    """Where in a run an optimizer step stands.

    Args:
        step: Optimizer steps taken before this one.
        steps_per_epoch: Optimizer steps in an epoch.
        epochs: Epochs in the whole run.
    """

    step: int
    steps_per_epoch: int
    epochs: int

    @property
    def total(self) -> int:
        """Optimizer steps in the whole run."""
        return self.steps_per_epoch * self.epochs

    @property
    def epoch(self) -> int:
        """The epoch that the step belongs to, from 0."""
        return self.step // self.steps_per_epoch


class Schedule(Component):
    """The learning rate over a run, as a factor on the optimizer's own.

    Invariant: the factor depends on the progress only, so a resumed run continues exactly.
    """

    kind: ClassVar[str] = "schedules"

    @abstractmethod
    def factor(self, progress: Progress) -> float:
        """The factor on the learning rate that the step at ``progress`` uses."""


class WeightAverage(Component):
    """A running average of a model's weights, to be evaluated and saved in their place."""

    kind: ClassVar[str] = "weight_averages"

    @abstractmethod
    def start(self, model: nn.Module) -> None:
        """Begins with the model's present weights."""

    @abstractmethod
    def update(self, model: nn.Module) -> None:
        """Takes the model's weights in, after an optimizer step."""

    @abstractmethod
    def weights(self) -> Mapping[str, Tensor]:
        """The average, by the names of the model's ``state_dict``; what is not in it is the model's own."""

    @abstractmethod
    def state_dict(self) -> dict[str, object]:
        """Everything that resuming needs: tensors and plain values."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """The inverse of :meth:`state_dict`."""


class EpochOrder(Component):
    """Which images an epoch has, how often, and in which order.

    Invariants: an epoch's order depends on the facts, the epoch and the generator only, so that a run continues
    exactly and several processes agree; every epoch has the same number of images.
    """

    kind: ClassVar[str] = "epoch_orders"

    def length(self, facts: DatasetFacts) -> int:
        """Number of images in every epoch, repetitions included; that of the dataset unless overridden."""
        return len(facts)

    @abstractmethod
    def order(self, facts: DatasetFacts, epoch: int, generator: torch.Generator) -> Sequence[int]:
        """The images of an epoch, as positions in the dataset; a position may come several times.

        Args:
            facts: Sizes and classes of the dataset's images.
            epoch: Which epoch, from 0.
            generator: Seeded by (seed, epoch); the only source of random numbers.
        """


class BatchGrouping(Component):
    """Which images share a batch.

    Invariant: the result depends on the arguments only.
    """

    kind: ClassVar[str] = "batch_groupings"

    @abstractmethod
    def group(
        self, order: Sequence[int], facts: DatasetFacts, batch_size: int, generator: torch.Generator
    ) -> Sequence[int]:
        """The same images in another order, of which each ``batch_size`` in a row make a batch.

        Args:
            order: The images of an epoch, as positions in the dataset.
            facts: Sizes and classes of the dataset's images.
            batch_size: Images per batch, over all processes.
            generator: Seeded by (seed, epoch), and used by the order before.
        """


class DataModule(Component):
    """Datasets and how they are put into batches."""

    kind: ClassVar[str] = "data_modules"

    #: The training set, or None where there is none.
    train: Dataset | None
    #: The validation set, or None where there is none.
    val: Dataset | None
    #: Images per process and step, of training and of validation.
    batch_size: int
    val_batch_size: int
    #: Processes per loader that read and transform images; 0 does it in this one.
    workers: int

    @property
    @abstractmethod
    def class_map(self) -> ClassMap:
        """Names and dataset ids of the classes; the training set's where there is one."""

    @abstractmethod
    def train_loader(
        self, seed: int, shard: Shard, *, pin_memory: bool = False, position: Callable[[], int] | None = None
    ) -> EpochLoader:
        """Batches of the training set.

        Args:
            seed: Order and augmentation depend on it, the epoch and the index only.
            shard: Which part of each batch this process gets.
            pin_memory: Whether batches are put into page-locked memory.
            position: Tells how many batches of the run are done, so that an epoch can be continued.
        """

    @abstractmethod
    def val_loader(self, shard: Shard, *, pin_memory: bool = False) -> EpochLoader:
        """Batches of the validation set: each image exactly once over all shards."""
