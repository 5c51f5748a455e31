"""The folder of a training run: what is where, and writing it so that a reader never sees half of it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detcore.checkpoint import CLASSES, CONFIG, WEIGHTS
from detcore.errors import CheckpointError
from detcore_train.durable import digest, disk_errors, remove, seal, sync, sync_folder, unseal

EXPERIMENT, TRAINING, META = "experiment.yaml", "training.ckpt", "checkpoint.json"
#: What became of the weights that the run began with.
LOADED = "weights.json"
LAST, BEST = "last", "best"


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint of a run: a detcore checkpoint folder with the training state beside it.

    Args:
        path: The folder.
        epoch: Epochs that were finished.
        step: Optimizer steps taken.
        values: The last evaluation's numbers, if there was one.
        digests: SHA-256 of each file.
        best: Whether its evaluation was the best of the run when it was written.
        problem: Why the folder cannot be told what it is; empty where it can.
    """

    path: Path
    epoch: int
    step: int
    values: Mapping[str, float | None] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    best: bool = False
    problem: str = ""

    @property
    def training(self) -> Path:
        """The trainer's own state."""
        return self.path / TRAINING

    def damage(self) -> str:
        """What is wrong with the files; empty where nothing is."""
        for name, expected in self.digests.items():
            try:
                if digest(self.path / name) != expected:
                    return f"{name} is truncated or was changed"
            except OSError as error:
                return f"{name} is missing" if isinstance(error, FileNotFoundError) else f"{name}: {error}"
        return self.problem

    @classmethod
    def read(cls, path: Path) -> Checkpoint | None:
        """The checkpoint in a folder, damaged ones too; None where there is none."""
        try:
            data = unseal((path / META).read_bytes())
        except OSError:
            if not path.is_dir():
                return None
            return cls(path, -1, _step_in_name(path), problem=f"{META} is missing")
        if data is None:
            return cls(path, -1, _step_in_name(path), problem=f"{META} is truncated or was changed")
        return cls(path, data["epoch"], data["step"], data["values"], data["digests"], data["best"])

    def seal(self) -> None:
        """Writes what it is, beside its files."""
        meta = {"epoch": self.epoch, "step": self.step, "best": self.best}
        text = seal({**meta, "values": dict(self.values), "digests": dict(self.digests)})
        (self.path / META).write_text(text, encoding="utf-8")


class RunFolder:
    """``experiment.yaml``, the logs, ``best/``, ``last/`` and older checkpoints.

    Args:
        path: The folder; made when something is written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def experiment(self) -> Path:
        """The resolved configuration of the run."""
        return self.path / EXPERIMENT

    @property
    def best(self) -> Path:
        """The checkpoint with the best value of the monitored number."""
        return self.path / BEST

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.path / LAST

    def checkpoints(self) -> list[Checkpoint]:
        """The checkpoints that a run can continue from, damaged ones too, newest first."""
        folders = [self.last, *self.path.glob("step-*")] if self.path.is_dir() else []
        found = [c for c in map(Checkpoint.read, folders) if c is not None]
        return sorted(found, key=lambda c: (c.step, c.path == self.last), reverse=True)

    def resumable(self, warn: Callable[[str], None]) -> Checkpoint | None:
        """The newest undamaged checkpoint; None where the run has none yet.

        Args:
            warn: Told about each damaged checkpoint that is passed over.

        Raises:
            CheckpointError: There are checkpoints, but all are damaged.
        """
        found = self.checkpoints()
        for checkpoint in found:
            damage = checkpoint.damage()
            if not damage:
                return checkpoint
            warn(f"{checkpoint.path} is damaged ({damage}); trying the one before it")
        if found:
            raise CheckpointError(f"{self.path}: every checkpoint is damaged; start again with another --out")
        return None

    def recover(self, start: Checkpoint | None, keep: int) -> None:
        """Finishes or clears away what a killed process left half done. By one process, before any writes.

        Args:
            start: The checkpoint that the run continues from. Newer ones are damaged, and are moved out of
                its way to ``damaged-NAME``.
            keep: How many of the newest checkpoints stay.
        """
        if not self.path.is_dir():
            return
        for retired in self.path.glob(".old-best-*"):
            if not self.best.exists():
                os.replace(retired, self.best)
        for pattern in (".writing-*", ".best-*", ".old-*"):
            for left in self.path.glob(pattern):
                shutil.rmtree(left, ignore_errors=True)
        for pattern in (".*.yaml.*", ".*.csv.*", ".*.json.*"):
            for left in self.path.glob(pattern):
                left.unlink(missing_ok=True)
        if start is None:
            return
        for checkpoint in self.checkpoints():
            if checkpoint.path == start.path:
                break
            moved = self.path / f"damaged-{checkpoint.path.name}"
            shutil.rmtree(moved, ignore_errors=True)
            os.replace(checkpoint.path, moved)
        best = Checkpoint.read(self.best)
        if start.best and (best is None or best.step != start.step):
            self._promote(start.path)
        self._prune(keep)

    def write_experiment(self, text: str) -> None:
        """Writes the configuration of the run."""
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self.path / f".{EXPERIMENT}.{os.getpid()}"
        temporary.write_text(text, encoding="utf-8")
        sync(temporary)
        os.replace(temporary, self.experiment)

    @contextmanager
    def writing(
        self, epoch: int, step: int, values: Mapping[str, float | None], keep: int, *, best: bool = False
    ) -> Iterator[Path]:
        """A folder to write a checkpoint into, which becomes ``last`` once it is complete.

        Args:
            epoch: Epochs that were finished.
            step: Optimizer steps taken.
            values: The last evaluation's numbers.
            keep: How many of the newest checkpoints stay.
            best: Whether it becomes ``best`` too.

        Raises:
            CheckpointError: The disk is full or broken; the checkpoints before are as they were.
        """
        temporary = self.path / f".writing-{os.getpid()}"
        what = f"{self.path}: the checkpoint after {step} steps"
        try:
            with disk_errors(what, self._remedy()):
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
                yield temporary
                if self.experiment.is_file():
                    shutil.copyfile(self.experiment, temporary / EXPERIMENT)
                digests = {file.name: digest(file) for file in sorted(temporary.iterdir())}
                Checkpoint(temporary, epoch, step, dict(values), digests, best).seal()
                sync_folder(temporary)
                self._retire_last()
                os.replace(temporary, self.last)
                sync(self.path)
                if best:
                    self._promote(self.last)
                self._prune(keep)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _remedy(self) -> str:
        before = next((c for c in self.checkpoints() if not c.problem), None)
        if before is None:
            return "There is none before it: make room, and start again"
        return (
            f"The one before it, after {before.step} steps, is intact: make room, and continue with the same "
            "command and --resume"
        )

    def _promote(self, checkpoint: Path) -> None:
        """Makes the weights in a checkpoint the best ones."""
        temporary, retired = self.path / f".best-{os.getpid()}", self.path / f".old-best-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(checkpoint, temporary, ignore=shutil.ignore_patterns(TRAINING))
        sync_folder(temporary)
        if self.best.exists():
            os.replace(self.best, retired)
        os.replace(temporary, self.best)
        sync(self.path)
        shutil.rmtree(retired, ignore_errors=True)

    def _retire_last(self) -> None:
        if not self.last.exists():
            return
        old = Checkpoint.read(self.last)
        if old is None or old.problem:
            remove(self.last)
            return
        name = self.path / f"step-{old.step:08d}"
        remove(name)
        os.replace(self.last, name)

    def _prune(self, keep: int) -> None:
        for checkpoint in self.checkpoints()[keep:]:
            remove(checkpoint.path)


def detector_folder(path: str | Path) -> Path:
    """The checkpoint that a path means: itself, or the best (else the last) of a run.

    Raises:
        CheckpointError: There is none; the message says what was looked for. Or its weights are not those that
            training wrote.
    """
    path = Path(path)
    if path.suffix == ".safetensors" or (path / WEIGHTS).is_file():
        return _undamaged(path)
    for candidate in (path / BEST, path / LAST):
        if all((candidate / name).is_file() for name in (WEIGHTS, CONFIG, CLASSES)):
            return _undamaged(candidate)
    what = (
        "no such folder"
        if not path.exists()
        else f"neither a checkpoint ({WEIGHTS}) nor a run ({BEST}/, {LAST}/)"
    )
    raise CheckpointError(f"{path}: {what}")


def _undamaged(path: Path) -> Path:
    """The path itself, if the weights are those that a run wrote there, or nothing says what it wrote."""
    written = Checkpoint.read(path) if (path / META).is_file() else None
    expected = None if written is None else written.digests.get(WEIGHTS)
    if expected is not None and digest(path / WEIGHTS) != expected:
        raise CheckpointError(
            f"{path / WEIGHTS} is truncated or was changed since it was written; use another checkpoint of the run"
        )
    return path


def _step_in_name(path: Path) -> int:
    """The step that a checkpoint's name tells; ``last`` is after all of them."""
    number = path.name.removeprefix("step-")
    return int(number) if number.isdigit() else sys.maxsize


def experiment_of(path: str | Path) -> Path | None:
    """The configuration of the run that a checkpoint or run folder belongs to, if it is there."""
    path = Path(path)
    for folder in (path, path.parent) if path.suffix != ".safetensors" else (path.parent,):
        if (folder / EXPERIMENT).is_file():
            return folder / EXPERIMENT
    return None


def plain(value: Any) -> Any:
    """Numbers of tensors and arrays, everything else as it is."""
    return value.item() if hasattr(value, "item") else value
