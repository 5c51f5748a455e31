"""What the commands share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import detcore
from detcore import config, hooks
from detcore.component import Spec
from detcore.errors import ConfigError
from detcore.interfaces import Detector
from detcore.precision import PRECISIONS, InferencePrecision
from detcore.serialize import as_spec
from detcore_train.experiment import Experiment
from detcore_train.runfolder import detector_folder

Accelerator = Literal["auto", "cpu", "cuda", "mps"]
ACCELERATORS = ("auto", "cpu", "cuda", "mps")


def check_accelerator(value: str, option: str) -> Accelerator:
    """``value``, with "auto" resolved to what is there.

    Raises:
        ConfigError: It is not one of the choices, or is not available here.
    """
    if value not in ACCELERATORS:
        raise ConfigError(f"{option} should be one of {', '.join(ACCELERATORS)}, got {value!r}")
    if value == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"{option} cuda: this torch finds no CUDA device; use {option} cpu")
    if value == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return cast(Accelerator, value)


def check_precision(value: str) -> InferencePrecision:
    """``value``, if it is one of the choices.

    Raises:
        ConfigError: It is not.
    """
    if value not in PRECISIONS:
        raise ConfigError(f"--precision should be one of {', '.join(PRECISIONS)}, got {value!r}")
    return cast(InferencePrecision, value)


def read_experiment(file: str, overrides: Sequence[str]) -> dict[str, Any]:
    """An experiment's resolved configuration, after the plugins' changes; neither built nor validated."""
    loaded = config.load(file, overrides)
    hooks.manager().hook.detcore_configure(config=loaded.data)
    return loaded.data if "type" in loaded.data else {"type": Experiment.__name__, **loaded.data}


def experiment_spec(data: Mapping[str, Any], title: str) -> Spec[Experiment]:
    """The validated experiment, not built.

    Raises:
        ConfigError: Everything that is wrong with it.
    """
    try:
        return as_spec(data, kind=Experiment.kind)
    except ConfigError as error:
        raise ConfigError(error.problems, title) from error.__cause__


def load_detector(path: Path, device: str) -> tuple[Detector, Path]:
    """The detector of a checkpoint or a run, and the checkpoint's path."""
    folder = detector_folder(path)
    return detcore.load(folder, device=check_accelerator(device, "--device")), folder


@contextmanager
def progress_bar(console: Console, what: str, total: int) -> Iterator[Any]:
    """A bar on a terminal, nothing elsewhere; gives a function that advances it by a number."""
    columns = (TextColumn(what), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda number: bar.advance(task, number)
