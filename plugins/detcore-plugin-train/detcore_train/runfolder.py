"""The folder of a training run: what is where, and writing it so that a reader never sees half of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from detcore.checkpoint import CLASSES, CONFIG, WEIGHTS
from detcore.errors import CheckpointError

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
    """

    path: Path
    epoch: int
    step: int
    values: Mapping[str, float | None] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def training(self) -> Path:
        """The trainer's own state."""
        return self.path / TRAINING

    def damage(self) -> str:
        """What is wrong with the files; empty where nothing is."""
        for name, digest in self.digests.items():
            file = self.path / name
            if not file.is_file():
                return f"{name} is missing"
            if _digest(file) != digest:
                return f"{name} is truncated or was changed"
        return ""

    @classmethod
    def read(cls, path: Path) -> Checkpoint | None:
        """The checkpoint in a folder; None where there is none."""
        try:
            data = json.loads((path / META).read_text(encoding="utf-8"))
            return cls(path, int(data["epoch"]), int(data["step"]), data["values"], data["digests"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


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
        """The checkpoints that a run can continue from, newest first."""
        folders = [self.last, *self.path.glob("step-*")] if self.path.is_dir() else []
        found = [c for c in map(Checkpoint.read, folders) if c is not None and c.training.is_file()]
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

    def write_experiment(self, text: str) -> None:
        """Writes the configuration of the run."""
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self.path / f".{EXPERIMENT}.{os.getpid()}"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, self.experiment)

    @contextmanager
    def writing(self, epoch: int, step: int, values: Mapping[str, float | None], keep: int) -> Iterator[Path]:
        """A folder to write a checkpoint into, which becomes ``last`` once it is complete.

        Args:
            epoch: Epochs that were finished.
            step: Optimizer steps taken.
            values: The last evaluation's numbers.
            keep: How many of the newest checkpoints stay.
        """
        temporary = self.path / f".writing-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            if self.experiment.is_file():
                shutil.copyfile(self.experiment, temporary / EXPERIMENT)
            digests = {file.name: _digest(file) for file in sorted(temporary.iterdir())}
            meta = asdict(Checkpoint(temporary, epoch, step, dict(values), digests))
            del meta["path"]
            (temporary / META).write_text(json.dumps(meta, indent=1), encoding="utf-8")
            self._retire_last()
            os.replace(temporary, self.last)
            self._prune(keep)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def promote_last(self) -> None:
        """Makes the weights in ``last`` the best ones."""
        temporary, retired = self.path / f".best-{os.getpid()}", self.path / f".old-best-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(self.last, temporary, ignore=shutil.ignore_patterns(TRAINING))
        if self.best.exists():
            os.replace(self.best, retired)
        os.replace(temporary, self.best)
        shutil.rmtree(retired, ignore_errors=True)

    def _retire_last(self) -> None:
        if not self.last.exists():
            return
        old = Checkpoint.read(self.last)
        name = self.path / f"step-{old.step:08d}" if old is not None else self.path / f".old-{os.getpid()}"
        shutil.rmtree(name, ignore_errors=True)
        os.replace(self.last, name)

    def _prune(self, keep: int) -> None:
        for checkpoint in self.checkpoints()[keep:]:
            shutil.rmtree(checkpoint.path, ignore_errors=True)
        for left in self.path.glob(".old-*"):
            shutil.rmtree(left, ignore_errors=True)


def detector_folder(path: str | Path) -> Path:
    """The checkpoint that a path means: itself, or the best (else the last) of a run.

    Raises:
        CheckpointError: There is none; the message says what was looked for.
    """
    path = Path(path)
    if path.suffix == ".safetensors" or (path / WEIGHTS).is_file():
        return path
    for candidate in (path / BEST, path / LAST):
        if all((candidate / name).is_file() for name in (WEIGHTS, CONFIG, CLASSES)):
            return candidate
    what = (
        "no such folder"
        if not path.exists()
        else f"neither a checkpoint ({WEIGHTS}) nor a run ({BEST}/, {LAST}/)"
    )
    raise CheckpointError(f"{path}: {what}")


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
