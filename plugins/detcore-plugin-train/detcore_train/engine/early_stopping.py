"""Stopping a run that has stopped to improve."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, Trainer
from rich.console import Console

from detcore.errors import ConfigError, did_you_mean
from detcore_train.evaluation import show


class EarlyStopping(Callback):
    """Ends the run after an evaluation, once the monitored number has not risen for a number of epochs.

    Every process sees the same numbers, so all stop after the same epoch.

    Args:
        monitor: The number to judge by; more is better.
        patience: Epochs without a better value after which the run ends; None never ends it.
        min_delta: How much a value has to be above the best one to be better.
        console: Where to say why the run ends.
    """

    def __init__(self, monitor: str, patience: int | None, min_delta: float, console: Console) -> None:
        self.monitor, self.patience, self.min_delta, self.console = monitor, patience, min_delta, console
        self.best: float | None = None
        #: The epoch (from 1) that reached the best value, and the last one that was judged; 0 for none.
        self.best_epoch = self.judged = 0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Ends a run at once that is continued although its patience is over."""
        self._stop_if_over(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Judges the epoch, if it was evaluated.

        Raises:
            ConfigError: The evaluation has no number of that name.
        """
        if not pl_module.evaluated:
            return
        values: dict[str, float | None] = pl_module.values
        if self.patience is not None and self.monitor not in values:
            near = did_you_mean(self.monitor, values) or f"there are {', '.join(map(repr, values)) or 'none'}"
            raise ConfigError(f"monitor: the evaluation has no number {self.monitor!r}; {near}")
        self.judged = trainer.current_epoch + 1
        value = values.get(self.monitor)
        if value is not None and (self.best is None or value > self.best + self.min_delta):
            self.best, self.best_epoch = value, self.judged
        self._stop_if_over(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The best so far, and how long ago it was."""
        return {"best": self.best, "best_epoch": self.best_epoch, "judged": self.judged}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self.best = state_dict["best"]
        self.best_epoch, self.judged = state_dict["best_epoch"], state_dict["judged"]

    def _stop_if_over(self, trainer: Trainer) -> None:
        waited = self.judged - self.best_epoch
        if self.patience is None or waited < self.patience:
            return
        trainer.should_stop = True
        if trainer.is_global_zero:
            best = f"{show(self.best)} of epoch {self.best_epoch}" if self.best_epoch else "no value at all"
            self.console.print(
                f"stopped early after epoch {self.judged}: the best {self.monitor} is still {best}, "
                f"{waited} epoch{'s'[: waited != 1]} ago (patience {self.patience})",
                soft_wrap=True,
                highlight=False,
            )
