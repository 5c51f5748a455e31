"""When checkpoints are written, and stopping on request."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint

from detcore.checkpoint import save
from detcore.errors import DetcoreError
from detcore_train.engine.averaging import AverageWeights
from detcore_train.engine.module import TrainingModule
from detcore_train.runfolder import TRAINING, RunFolder
from detcore_train.runlock import RunLock

#: Steps between agreements on stopping where several processes train together.
_AGREE_EVERY = 10


class TrainingInterrupted(DetcoreError):  # noqa: N818 - it is no error, but ends the program like one
    """Training was asked to stop, and did after saving; the message says where."""


class Checkpointing(Checkpoint):
    """Writes ``last`` after each epoch, every so many steps and on request; ``best`` after the best evaluation.

    Args:
        folder: The run.
        monitor: The number to judge by; more is better.
        keep: Newest checkpoints that are kept.
        every: Optimizer steps between checkpoints within an epoch, or None.
        average: Puts averaged weights in place while they are saved.
        lock: Asked before each checkpoint whether the folder still is this run's; None asks nobody.
    """

    def __init__(
        self,
        folder: RunFolder,
        monitor: str,
        keep: int,
        average: AverageWeights,
        every: int | None = None,
        *,
        lock: RunLock | None = None,
    ) -> None:
        self.folder, self.monitor, self.keep, self.average = folder, monitor, keep, average
        self.every, self.lock = every, lock
        self.best: float | None = None
        self.best_epoch: int | None = None
        #: Name of the signal that asks to stop, once one has arrived.
        self.stop = ""

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Saves or stops in the midst of an epoch.

        Raises:
            TrainingInterrupted: A signal asked to stop; everything is saved.
        """
        in_epoch = pl_module.batches_done % pl_module.batches_per_epoch
        if in_epoch == 0:
            return  # the epoch is done: its evaluation and its checkpoint come first
        if in_epoch % pl_module.experiment.accumulate:
            return  # gradients that were accumulated so far are in no checkpoint
        stop = self._agreed_to_stop(trainer)
        if stop or (self.every is not None and trainer.global_step % self.every == 0):
            self._save(trainer, pl_module, pl_module.progress.epoch, best=False)
        if stop:
            self._interrupt(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Saves, after the evaluation if there was one.

        Raises:
            TrainingInterrupted: A signal asked to stop; everything is saved.
        """
        epoch = trainer.current_epoch + 1
        # where nothing is ever evaluated, the newest is the best there is
        judged = pl_module.evaluated or pl_module.experiment.data.val is None
        self._save(trainer, pl_module, epoch, best=judged and self._is_best(pl_module.values, epoch))
        if self._agreed_to_stop(trainer, now=True) and epoch < pl_module.experiment.epochs:
            self._interrupt(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The best so far."""
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Inside, the first Ctrl-C or SIGTERM asks to stop; the second one stops without saving."""
        owner = os.getpid()

        def ask(number: int, _: Any) -> None:
            if os.getpid() != owner:  # a reading process that inherited this handler
                if number == signal.SIGTERM:
                    os._exit(0)
                return
            if self.stop:
                raise KeyboardInterrupt
            self.stop = signal.Signals(number).name

        try:
            before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not in the main thread: nobody presses Ctrl-C there
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _agreed_to_stop(self, trainer: Trainer, *, now: bool = False) -> bool:
        """Whether any process was asked to stop; every process gets the same answer at the same step."""
        if trainer.world_size == 1:
            return bool(self.stop)
        if not now and trainer.global_step % _AGREE_EVERY:
            return False
        return trainer.strategy.reduce_boolean_decision(bool(self.stop), all=False)

    def _is_best(self, values: dict[str, float | None], epoch: int) -> bool:
        value = values.get(self.monitor)
        better = self.best is None or (value is not None and value > self.best)
        if better:
            self.best, self.best_epoch = value, epoch
        return better

    def _save(self, trainer: Trainer, module: TrainingModule, epoch: int, *, best: bool) -> None:
        step = trainer.global_step
        if not trainer.is_global_zero:
            trainer.save_checkpoint(self.folder.path / TRAINING)  # takes part; only the first process writes
            return
        if self.lock is not None:
            self.lock.confirm()
        with self.folder.writing(epoch, step, module.values, self.keep, best=best) as path:
            with self.average.in_place(module.model):
                save(module.model, path / "detector")
            for file in (path / "detector").iterdir():
                file.rename(path / file.name)
            (path / "detector").rmdir()
            trainer.save_checkpoint(path / TRAINING)

    def _interrupt(self, module: TrainingModule) -> None:
        done = f"{module.progress.step} steps"
        raise TrainingInterrupted(
            f"stopped by {self.stop or 'another process'} after {done}; saved to {self.folder.last}. "
            "Continue with the same command and --resume"
        )
