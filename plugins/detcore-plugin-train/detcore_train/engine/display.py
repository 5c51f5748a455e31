"""What a user sees of a run: a progress bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import time
from collections import deque
from datetime import timedelta
from typing import Any

from lightning.pytorch import Callback, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from detcore_train.engine.module import TrainingModule
from detcore_train.evaluation import show

#: Batches that displayed numbers are averaged over.
_WINDOW = 20
#: Seconds between lines where there is no terminal.
_LINE_EVERY = 30.0


class Display(Callback):
    """Epoch, steps, loss terms, learning rate and the time that is left. First process only.

    Args:
        console: Where to write.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar: Progress | None = None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Puts up the bar."""
        if not trainer.is_global_zero:
            return
        self._terms: deque[dict[str, float]] = deque(maxlen=_WINDOW)
        self._clock = _Clock(pl_module.batches_done)
        self._last_line = time.perf_counter()
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"),
            )
            self._bar = Progress(*columns, console=self.console, transient=True)
            self._training = self._bar.add_task("", total=None, numbers="")
            self._evaluating = self._bar.add_task("evaluating", total=None, numbers="", visible=False)
            self._bar.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Moves the bar, or writes a line if the last one was long ago."""
        if not trainer.is_global_zero:
            return
        self._terms.append(pl_module.terms)
        self._clock.tick(pl_module.batches_done)
        if self._bar is not None:
            done, total = self._position(pl_module)
            description = self._epoch(pl_module)
            self._bar.update(
                self._training,
                description=description,
                completed=done,
                total=total,
                numbers=self._numbers(trainer, pl_module),
            )
        elif time.perf_counter() - self._last_line >= _LINE_EVERY:
            self._line(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Puts up the bar of the evaluation."""
        if trainer.is_global_zero:
            self._clock.pause()
            if self._bar is not None:
                total = sum(trainer.num_val_batches)
                self._bar.reset(self._evaluating, total=total, visible=True)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Moves the bar of the evaluation."""
        if self._bar is not None:
            self._bar.advance(self._evaluating)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Takes the bar of the evaluation down."""
        if trainer.is_global_zero:
            self._clock.go_on(pl_module.batches_done)
            if self._bar is not None:
                self._bar.update(self._evaluating, visible=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """One line per epoch that stays."""
        if trainer.is_global_zero:
            values = pl_module.values if pl_module.evaluated else {}
            shown = "  ".join(f"{n} {show(v)}" for n, v in list(values.items())[:3])
            self._line(trainer, pl_module, shown)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Takes the bar down."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Takes the bar down."""
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _position(self, module: TrainingModule) -> tuple[int, int]:
        per_epoch = module.batches_per_epoch
        return (module.batches_done - 1) % per_epoch + 1, per_epoch

    def _epoch(self, module: TrainingModule) -> str:
        return f"epoch {(module.batches_done - 1) // module.batches_per_epoch + 1}/{module.experiment.epochs}"

    def _numbers(self, trainer: Trainer, module: TrainingModule) -> str:
        names = list(self._terms[-1])
        mean = {n: sum(t.get(n, math.nan) for t in self._terms) / len(self._terms) for n in names}
        parts = [f"loss {sum(mean.values()):.3f}"]
        if len(names) > 1:
            parts.append("(" + ", ".join(f"{n.removeprefix('loss_')} {v:.3f}" for n, v in mean.items()) + ")")
        parts.append(f"lr {trainer.optimizers[0].param_groups[0]['lr']:.2g}")
        seconds = self._clock.seconds_per_batch
        left = (module.batches_per_epoch * module.experiment.epochs - module.batches_done) * seconds
        parts += [f"{seconds:.2f} s/batch", f"eta {timedelta(seconds=round(left))}"]
        return "  ".join(parts)

    def _line(self, trainer: Trainer, module: TrainingModule, extra: str = "") -> None:
        done, total = self._position(module)
        text = f"{self._epoch(module)}  {done}/{total}  {self._numbers(trainer, module)}"
        self.console.print(Text(f"{text}  {extra}".rstrip()), soft_wrap=True)
        self._last_line = time.perf_counter()


class _Clock:
    """Seconds per batch, evaluations left out."""

    def __init__(self, done: int) -> None:
        self._spent, self._batches = 0.0, 0
        self.go_on(done)

    def go_on(self, done: int) -> None:
        """Begins to count."""
        self._since, self._done = time.perf_counter(), done

    def tick(self, done: int) -> None:
        """Counts the batches done since."""
        now = time.perf_counter()
        self._spent += now - self._since
        self._batches += done - self._done
        self._since, self._done = now, done

    def pause(self) -> None:
        """What follows until :meth:`go_on` is not counted."""

    @property
    def seconds_per_batch(self) -> float:
        """The mean so far."""
        return self._spent / max(self._batches, 1)
