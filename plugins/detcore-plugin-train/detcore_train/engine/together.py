"""What several processes of a run have to do together."""

from __future__ import annotations

import signal
import threading
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _NormBase

from detcore.distributed import world_size
from detcore.errors import ConfigError

#: Time that processes wait for the first one's evaluation.
_PATIENCE = timedelta(hours=6)


class Together(Callback):
    """Checks that all processes train the same, and keeps their statistics of batch normalisation equal.

    It comes first among the callbacks, so that averages of weights and checkpoints see equal statistics.
    """

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Remembers who handles signals."""
        self._handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Makes sure that the processes belong together.

        Raises:
            ConfigError: They differ in the number of their images, or in the step that they continue from.
        """
        if trainer.world_size == 1:
            return
        self._keep_signals(trainer)
        # the first process measures while the others wait: no step takes that long
        pl_module.patient = dist.new_group(backend="gloo", timeout=_PATIENCE)
        data = pl_module.experiment.data
        check_same(
            {
                "images of the training set": len(data.train),
                "images of the validation set": 0 if data.val is None else len(data.val),
                "classes": data.class_map.names,
                "images per process and step": data.batch_size,
                "batches done before": pl_module.batches_done,
            }
        )

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Gives every process the mean of their statistics."""
        if trainer.world_size > 1:
            average_statistics(pl_module.model)

    def _keep_signals(self, trainer: Trainer) -> None:
        """Undoes the trainer's handling of SIGTERM, which communicates inside of the handler, at any time."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handler)
        loop = trainer.fit_loop.epoch_loop
        if hasattr(
            loop, "_broadcast_sigterm_tensor"
        ):  # a synchronisation in each step, of what is never set now
            loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def check_same(mine: dict[str, Any]) -> None:
    """Checks that values are the same in all processes, in every one of them.

    Raises:
        ConfigError: They are not; the message says what differs, and where.
    """
    everyone: list[Any] = [None] * world_size()
    dist.all_gather_object(everyone, mine)
    for name, value in everyone[0].items():
        other = next((rank for rank, theirs in enumerate(everyone) if theirs[name] != value), None)
        if other is not None:
            raise ConfigError(
                f"processes differ in their {name}: {value} in process 0, {everyone[other][name]} in process "
                f"{other}. Every machine needs the same experiment, the same data and the same folder --out (a shared "
                "file system)"
            )


@torch.no_grad()
def average_statistics(model: nn.Module) -> None:
    """Gives every process the mean of their running statistics of batch normalisation, with one message.

    Layers that do not train, or that share their statistics in each step already, are left alone.
    """
    statistics = running_statistics(model)
    if world_size() == 1 or not statistics:
        return
    flat = torch.cat([value.flatten() for value in statistics])
    dist.all_reduce(flat)
    flat /= world_size()
    for value, mean in zip(
        statistics, torch.split(flat, [value.numel() for value in statistics]), strict=True
    ):
        value.copy_(mean.view_as(value))


def running_statistics(model: nn.Module) -> list[Tensor]:
    """The statistics that a step of training changes in each process by itself."""
    layers = [
        m
        for m in model.modules()
        if isinstance(m, _NormBase) and m.training and not isinstance(m, SyncBatchNorm)
    ]
    found = [value for layer in layers for value in (layer.running_mean, layer.running_var)]
    return [value for value in found if value is not None]
