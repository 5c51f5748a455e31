"""``detcore train``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console

from detcore import hooks
from detcore.allocator import keep_freed_memory
from detcore.errors import ConfigError
from detcore.serialize import build
from detcore_train.commands.common import check_accelerator, read_experiment
from detcore_train.engine.checkpointing import TrainingInterrupted
from detcore_train.engine.fit import fit
from detcore_train.engine.layout import Layout
from detcore_train.experiment import Experiment
from detcore_train.runfolder import RunFolder
from detcore_train.runlock import locked


def run(
    file: str,
    overrides: Sequence[str],
    *,
    out: Path | None,
    resume: bool,
    weights: str | None,
    reinit: Sequence[str],
    accelerator: str,
    devices: str,
    nodes: str,
    timeout: float,
) -> None:
    """Trains, and says where everything is; see the command's own help for the arguments."""
    check_accelerator(accelerator, "--accelerator")  # before anything is read
    counts = number_or_auto("--devices", devices), number_or_auto("--nodes", nodes)
    keep_freed_memory()
    console = Console()
    folder = RunFolder(out or Path("runs") / Path(file).stem)
    computing = check_accelerator(accelerator, "--accelerator")
    layout = Layout.find(computing, *counts)
    try:
        with locked(folder.path, layout.rank, console) as lock:  # before data is loaded
            experiment = load_experiment(file, [*overrides, *beginning(weights, reinit)])
            result = fit(
                experiment,
                folder.path,
                resume=resume,
                accelerator=computing,
                devices=counts[0],
                nodes=counts[1],
                timeout=timeout,
                console=console,
                lock=lock,
            )
    except TrainingInterrupted as stop:
        if layout.rank == 0:
            console.print(f"[yellow]{stop}[/]", soft_wrap=True)
        sys.exit(130)
    if not result.main:
        return
    best, epoch = result.best
    judged = f" ({experiment.monitor} {best:.3f} after epoch {epoch})" if best is not None else ""
    console.print(f"trained in {result.seconds:.0f} s; run: {folder.path}", soft_wrap=True)
    console.print(f"best checkpoint: {folder.best}{judged}; last: {folder.last}", soft_wrap=True)
    if result.values:
        from detcore_train.evaluation import Evaluation

        print(Evaluation(result.values, 0, 0.0).line())  # noqa: T201 - exactly this line


def number_or_auto(option: str, text: str) -> int | Literal["auto"]:
    """An option's number.

    Raises:
        ConfigError: It is neither a number above 0 nor "auto".
    """
    if text == "auto":
        return "auto"
    if not (text.isdecimal() and int(text)):
        raise ConfigError(f"{option} should be a number above 0, or auto; got {text!r}")
    return int(text)


def beginning(weights: str | None, reinit: Sequence[str]) -> list[str]:
    """What the options say about the weights to begin with, as overrides."""
    found = [] if weights is None else [f"weights={json.dumps(weights)}"]
    return [*found, f"reinit={json.dumps(list(reinit))}"] if reinit else found


def load_experiment(file: str, overrides: Sequence[str]) -> Experiment:
    """The experiment that a file or recipe describes, with everything in it built.

    Raises:
        ConfigError: Something in it is wrong; all of it is reported, before any data is read.
    """
    experiment = build(read_experiment(file, overrides), kind=Experiment.kind, title=file)
    hooks.manager().hook.detcore_built(model=experiment.model)
    return experiment  # type: ignore[no-any-return]
