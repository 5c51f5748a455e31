"""The logs of a run: CSV files and TensorBoard."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import torch
from lightning.pytorch import Callback, Trainer

from detcore.distributed import reduce_mean
from detcore_train.durable import sync
from detcore_train.engine.module import TrainingModule

TRAIN_CSV, VAL_CSV, TENSORBOARD = "train.csv", "val.csv", "tensorboard"


class CsvLog:
    """Rows of numbers in a file that is complete after each of them.

    Args:
        path: The file.
        after_step: Rows of later steps are dropped from an existing file (a resumed run writes them again);
            None drops them all.
    """

    def __init__(self, path: Path, after_step: int | None = None) -> None:
        self.path = path
        self.rows: list[dict[str, str]] = []
        if after_step is not None and path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                self.rows = [row for row in _complete(file) if int(row["step"]) <= after_step]
        self.columns = list(self.rows[0]) if self.rows else []
        self._rewrite()

    def add(self, row: Mapping[str, object]) -> None:
        """Appends a row; new names become new columns. None becomes an empty cell."""
        new = [name for name in row if name not in self.columns]
        cells = {name: "" if value is None else f"{value:.9g}" if isinstance(value, float) else str(value)
                 for name, value in row.items()}  # fmt: skip  # 9 digits tell any two float32 apart
        self.rows.append(cells)
        if new:
            self.columns += new
            self._rewrite()
            return
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns, restval="").writerow(cells)

    def sync(self) -> None:
        """Waits until the rows are on the disk."""
        sync(self.path)

    def _rewrite(self) -> None:
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, restval="")
            if self.columns:
                writer.writeheader()
            writer.writerows(self.rows)
        os.replace(temporary, self.path)


def _complete(file: TextIO) -> list[dict[str, str]]:
    """The rows that were written whole; a process that was killed may have left a part of the last one."""
    lines = [line for line in file if line.endswith("\n")]
    rows = csv.DictReader(lines, restkey="more", restval=None)
    return [row for row in rows if None not in row.values() and "more" not in row and row["step"].isdigit()]


class Logbook(Callback):
    """Writes means over ``every`` steps of losses and metrics, and each evaluation.

    What it has summed up since its last entry is part of each checkpoint, so that a resumed run writes the
    rows that an unbroken one writes.

    Args:
        folder: The run's folder.
        every: Steps between entries.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every
        self._restored: Mapping[str, Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Opens the logs, after the steps that a resumed run has done."""
        # written in the steps that are done; none is written before the next step is
        self._written, self._device = trainer.global_step, pl_module.device
        self._begin()
        if self._restored is not None:
            self._sums.update(self._restored["sums"])
            self._batches, self._images = self._restored["batches"], self._restored["images"]
            self._restored = None
        self._waiting_since = time.perf_counter()
        if not trainer.is_global_zero:
            return
        from torch.utils.tensorboard import SummaryWriter

        done = trainer.global_step
        self.folder.mkdir(parents=True, exist_ok=True)
        if not done:  # of a run that was killed before its first checkpoint
            for events in (self.folder / TENSORBOARD).glob("events.out.tfevents.*"):
                events.unlink()
        self._train = CsvLog(self.folder / TRAIN_CSV, done or None)
        self._val = CsvLog(self.folder / VAL_CSV, done or None)
        self._board = SummaryWriter(str(self.folder / TENSORBOARD), purge_step=done + 1 if done else None)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Notes the time spent on waiting for data."""
        self._waited += time.perf_counter() - self._waiting_since

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """Adds the batch up, and writes at every ``every``-th step."""
        self._batches += 1
        self._images += len(batch) * trainer.world_size
        sums = {"loss": sum(pl_module.terms.values()), **pl_module.terms, **pl_module.losses.metrics}
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        if trainer.global_step % self.every == 0 and trainer.global_step != self._written:
            self._write(trainer, pl_module)
        self._waiting_since = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Writes an evaluation."""
        # an evaluation is no time of training
        self._began += time.perf_counter() - self._waiting_since
        self._waiting_since = time.perf_counter()
        if not trainer.is_global_zero:
            return
        step = trainer.global_step
        self._val.add({"epoch": pl_module.progress.epoch, "step": step, **pl_module.values})
        for name, value in pl_module.values.items():
            if value is not None:
                self._board.add_scalar(f"val/{name}", value, step)
        self._board.flush()

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Closes the logs."""
        self._close(trainer)

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Closes the logs."""
        self._close(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Makes sure that the logs reach as far as the checkpoint does."""
        if trainer.is_global_zero:
            self._board.flush()
            self._train.sync()
            self._val.sync()

    def state_dict(self) -> dict[str, Any]:
        """What was summed up since the last entry, averaged over the processes. Every process takes part."""
        sums = self._reduced() if self._sums else {}
        return {"sums": sums, "batches": self._batches, "images": self._images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._restored = state_dict

    def _close(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and hasattr(self, "_board"):
            self._board.close()

    def _begin(self) -> None:
        self._sums: dict[str, Any] = {}
        self._batches = self._images = 0
        self._waited, self._began = 0.0, time.perf_counter()

    def _write(self, trainer: Trainer, module: TrainingModule) -> None:
        step, seconds = trainer.global_step, time.perf_counter() - self._began
        means = {name: value / self._batches for name, value in self._reduced().items()}
        speed = {"images_per_second": self._images / seconds, "waiting_for_data": self._waited / seconds}
        self._written = step
        self._begin()
        if not trainer.is_global_zero:
            return
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        epoch = (module.batches_done - 1) // module.batches_per_epoch + 1
        self._train.add({"epoch": epoch, "step": step, "lr": lr, **means, **speed})
        for name, value in {"lr": lr, **means, **speed}.items():
            self._board.add_scalar(f"train/{name}", value, step)

    def _reduced(self) -> dict[str, float]:
        """The sums, averaged over the processes. Every process takes part."""
        device = self._device
        sums = torch.stack(
            [torch.as_tensor(v, dtype=torch.float64).to(device).reshape(()) for v in self._sums.values()]
        )
        return dict(zip(self._sums, reduce_mean(sums).tolist(), strict=True))
