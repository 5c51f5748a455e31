"""What the trainer trains: a detector, and the state of a run that lets it continue exactly."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from detcore_data import ExampleBatch
from detcore_data.generators import seed_all
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor

from detcore.distributed import world_size
from detcore.interfaces import Metric
from detcore.structures import ImageDetections, Losses
from detcore_train.engine.guard import Guard, NonFiniteGradientError, NonFiniteLossError
from detcore_train.evaluation import as_images, detect
from detcore_train.experiment import Experiment
from detcore_train.interfaces import Progress
from detcore_train.loader import EpochLoader, Shard

_STATE = "detcore"

__all__ = ["NonFiniteGradientError", "NonFiniteLossError", "TrainingData", "TrainingModule"]


class TrainingModule(LightningModule):
    """A detector in training.

    All that is random in a step comes from a generator that is seeded by (seed, batch, rank), so a run
    continues exactly from any step without the state of any generator.

    Args:
        experiment: What is trained, and how.
        lr_scale: Factor on the learning rates.
    """

    def __init__(self, experiment: Experiment, lr_scale: float = 1.0) -> None:
        super().__init__()
        self.model = experiment.model.to(memory_format=torch.channels_last)
        self.experiment = experiment
        self.lr_scale = lr_scale
        #: Batches of training that are done, in all epochs; the position of the run.
        self.batches_done = 0
        #: The last batch's losses, and the values of their terms.
        self.losses = Losses({})
        self.terms: dict[str, float] = {}
        #: Numbers of the last evaluation.
        self.values: dict[str, float | None] = {}
        #: How processes communicate where one may work for long; in their usual way where None.
        self.patient: dist.ProcessGroup | None = None
        #: The batch that is trained on.
        self.batch: ExampleBatch | None = None
        gradients = experiment.guard_gradients and experiment.precision != "16-mixed"
        self._guard = Guard(gradients=gradients)
        self._evaluating = False
        self._evaluated_after = -1
        self._found: list[tuple[tuple[int, ...], list[ImageDetections]]] = []

    @property
    def batches_per_epoch(self) -> int:
        """Batches in an epoch."""
        return int(self.trainer.num_training_batches)

    @property
    def progress(self) -> Progress:
        """Where the run stands."""
        steps = -(-self.batches_per_epoch // self.experiment.accumulate)
        return Progress(self.trainer.global_step, steps, self.experiment.epochs)

    def where(self) -> str:
        """The run's position in words, from 1."""
        per_epoch = 0.0 if self._trainer is None else self.trainer.num_training_batches
        if not math.isfinite(per_epoch) or per_epoch == 0:
            return "the begin"
        if self._evaluating:
            return f"the evaluation after batch {self.batches_done}"
        epoch, batch = divmod(self.batches_done, int(per_epoch))
        return f"epoch {epoch + 1}, batch {batch + 1}/{int(per_epoch)}"

    # ------------------------------------------------------------------------------------------- training

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The experiment's optimizer; its learning rates are set anew before each step."""
        return self.experiment.optimizer.build(self.model, lr_scale=self.lr_scale)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """The batch on the device, copied while the device works."""
        return None if batch is None else batch.to(device, non_blocking=True)

    def on_train_batch_start(self, batch: ExampleBatch, batch_idx: int) -> None:
        """Seeds the step, sets the learning rate and tells the detector's parts how far the run is."""
        seed_step(self.experiment.seed, self.batches_done, self.global_rank)
        progress = self.progress
        factor = self.experiment.schedule.factor(progress)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["initial_lr"] * factor
        self.model.on_progress(progress.epoch, progress.step)

    def training_step(self, batch: ExampleBatch, batch_idx: int) -> Tensor:
        """The sum of the losses of a batch."""
        self.batch = batch
        self._guard.before(self.model, self.device)
        images = as_images(self.model, batch)
        losses = self.model(images, batch.targets)
        self.losses = Losses({n: v.detach() for n, v in losses.items()}, detached(losses.metrics))
        self._sent = _Sent(torch.stack([v.reshape(()).float() for v in self.losses.values()]))
        return losses.total * self._share_of_step  # type: ignore[no-any-return]

    @property
    def _share_of_step(self) -> float:
        """1, and more for the batches that are left at the end of an epoch: the trainer divides by ``accumulate``."""
        accumulate, whole = self.experiment.accumulate, self.batches_per_epoch
        left = whole % accumulate
        return accumulate / left if self.batches_done % whole >= whole - left else 1.0

    def on_after_backward(self) -> None:
        """Stops before a step that would spoil the weights.

        Raises:
            NonFiniteLossError: A loss term is NaN or infinite.
            NonFiniteGradientError: A gradient is NaN or infinite, and the experiment guards gradients.
        """
        self.terms = dict(zip(self.losses, self._sent.receive(), strict=True))
        self._guard.check(self)

    def on_train_batch_end(self, outputs: Any, batch: ExampleBatch, batch_idx: int) -> None:
        """Lets go of the batch."""
        self.batch = None
        del self._sent

    # ----------------------------------------------------------------------------------------- evaluation

    def on_validation_epoch_start(self) -> None:
        """Forgets the detections of the evaluation before."""
        self._evaluating = True
        self._found = []

    def validation_step(self, batch: ExampleBatch | None, batch_idx: int) -> None:
        """Keeps the detections of a batch; there is none in a process without a share of the validation set."""
        if batch is None:
            return
        self._found.append((batch.image_ids, detect(self.model, batch)))

    def on_validation_epoch_end(self) -> None:
        """Measures the detections of all processes, on the first of them."""
        self.values = measure(self.experiment.metric, self.experiment.data.val, self._found, self.patient)
        self._found = []
        self._evaluating = False
        self._evaluated_after = self.batches_done

    @property
    def evaluated(self) -> bool:
        """Whether :attr:`values` are those of the present weights."""
        return self._evaluated_after == self.batches_done

    # ---------------------------------------------------------------------------------------------- state

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the run's position."""
        checkpoint[_STATE] = {
            "batches": self.batches_done,
            "batches_per_epoch": self.batches_per_epoch,
            "values": dict(self.values),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the run's position."""
        self.batches_done = checkpoint[_STATE]["batches"]
        self.values = dict(checkpoint[_STATE]["values"])


class TrainingData(LightningDataModule):
    """The experiment's data as the trainer wants it.

    Args:
        module: The module that is trained; it knows the position in the run.
    """

    def __init__(self, module: TrainingModule) -> None:
        super().__init__()
        self.module = module
        self._loaders: list[EpochLoader] = []

    def _setting(self) -> tuple[Shard, bool]:
        trainer = self.module.trainer
        return Shard(trainer.global_rank, trainer.world_size), trainer.strategy.root_device.type == "cuda"

    def train_dataloader(self) -> EpochLoader:
        """Batches from the run's position on."""
        experiment, (shard, pin) = self.module.experiment, self._setting()
        self._loaders.append(
            experiment.data.train_loader(
                experiment.seed, shard, pin_memory=pin, position=lambda: self.module.batches_done
            )
        )
        self._loaders[-1].epochs = experiment.epochs
        return self._loaders[-1]

    def val_dataloader(self) -> EpochLoader | NoShare | list[EpochLoader]:
        """The validation set; an empty list where there is none."""
        if self.module.experiment.data.val is None:
            return []
        shard, pin = self._setting()
        loader = self.module.experiment.data.val_loader(shard, pin_memory=pin)
        self._loaders.append(loader)
        return loader if len(loader) or shard.count == 1 else NoShare()

    def close(self) -> None:
        """Ends the reading processes (``teardown`` would not be called where training stops early)."""
        for loader in self._loaders:
            loader.close()
        self._loaders = []


class NoShare:
    """The validation batches of a process that has none: the trainer wants one in every process."""

    def __len__(self) -> int:
        """One."""
        return 1

    def __iter__(self) -> Iterator[None]:
        """No batch, once."""
        yield None


class _Sent:
    """A small tensor on its way to the CPU, behind the forward pass and beside the backward pass."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.event = values, None
        if values.is_cuda:
            self.values = torch.empty_like(values, device="cpu", pin_memory=True)
            self.values.copy_(values, non_blocking=True)
            self.event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.event.record()

    def receive(self) -> list[float]:
        """The values, once they have arrived."""
        if self.event is not None:
            self.event.synchronize()
        return self.values.tolist()


def seed_step(seed: int, batch: int, rank: int) -> None:
    """Seeds the generators for a batch: torch's, and for parts that draw from them, numpy's and Python's.

    Those of the CPU are the same in every process: samplers read it, so that an image's sample does not depend on the
    process that it falls to. Those of devices differ, so that processes do not drop the same units out.
    """
    torch.manual_seed(step_seed(seed, batch, 0))
    seed_all(step_seed(seed, batch, 0))
    if rank and torch.cuda.is_available():
        torch.cuda.manual_seed(step_seed(seed, batch, rank))


def step_seed(seed: int, batch: int, rank: int) -> int:
    """The seed of one batch's random numbers in one process."""
    digest = hashlib.blake2b(f"step/{seed}/{batch}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def detached(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The values without their graphs."""
    return {name: torch.as_tensor(value).detach() for name, value in values.items()}


def measure(
    metric: Metric,
    dataset: Any,
    found: list[tuple[tuple[int, ...], list[ImageDetections]]],
    group: dist.ProcessGroup | None = None,
) -> dict[str, float | None]:
    """The metric's numbers over the detections of all processes, in every process.

    Each process brings the detections of its own images; the first one measures them all.

    Args:
        metric: What to measure.
        dataset: Of all processes' images.
        found: Image ids and detections of this process.
        group: How the processes communicate; in their usual way where None.
    """
    if world_size() == 1:
        return _compute(metric, dataset, found)
    first = dist.get_rank() == 0
    gathered: list[Any] | None = [None] * world_size() if first else None
    dist.gather_object(found, gathered, group=group)
    result: list[Any] = [None]
    if gathered is not None:
        result = [_compute(metric, dataset, [item for part in gathered for item in part])]
    dist.broadcast_object_list(result, group=group)
    return result[0]  # type: ignore[no-any-return]


def _compute(
    metric: Metric, dataset: Any, found: list[tuple[tuple[int, ...], list[ImageDetections]]]
) -> dict[str, float | None]:
    metric.start(dataset)
    for image_ids, detections in found:
        metric.update(image_ids, detections)
    return metric.compute()
