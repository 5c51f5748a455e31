"""``detcore eval``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from detcore.component import Spec
from detcore.errors import ConfigError
from detcore.interfaces import Metric
from detcore.signature import signature_of
from detcore.structures import ClassMap
from detcore_train.commands.common import experiment_spec, load_detector, progress_bar, read_experiment
from detcore_train.evaluation import Evaluation, evaluate, show
from detcore_train.interfaces import DataModule
from detcore_train.runfolder import experiment_of


def run(
    target: Path,
    arguments: Sequence[str],
    *,
    out: Path | None,
    batch_size: int | None,
    workers: int | None,
    device: str,
) -> None:
    """Evaluates, prints tables and writes the numbers; see the command's own help for the arguments."""
    console = Console()
    file, overrides = split_arguments(target, arguments)
    spec = experiment_spec(read_experiment(file, overrides), file)
    detector, folder = load_detector(target, device)
    data, metric = build_validation(spec, detector.class_map)
    if data.val is None:
        raise ConfigError(f"{file}: data.val is missing, so there is nothing to evaluate on")
    count = len(data.val)
    with progress_bar(console, "evaluating", count) as advance:
        result = evaluate(
            detector,
            data.val,
            metric,
            batch_size=batch_size or data.val_batch_size,
            workers=data.workers if workers is None else workers,
            report=advance,
        )
    per_class = getattr(metric, "per_class", None)
    numbers = per_class() if per_class is not None else {}
    report(console, result, numbers)
    path = out or (folder.parent if folder.suffix == ".safetensors" else folder) / "evaluation.json"
    extra = {"checkpoint": str(folder), "per_class": numbers}
    Evaluation(result.values, result.images, result.seconds, extra).write(path)
    console.print(f"checkpoint: {folder}; numbers: {path}", soft_wrap=True)
    print(result.line())  # noqa: T201 - the last line is exactly this


def split_arguments(target: Path, arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The experiment's file (the run's own where none is given) and the overrides.

    Raises:
        ConfigError: The checkpoint has no experiment beside it, and none is given.
    """
    if arguments and "=" not in arguments[0]:
        return arguments[0], list(arguments[1:])
    own = experiment_of(target)
    if own is None:
        raise ConfigError(
            f"{target} has no experiment.yaml beside it; give the experiment's FILE as the second argument"
        )
    return str(own), list(arguments)


def build_validation(spec: Spec[Any], class_map: ClassMap) -> tuple[DataModule, Metric]:
    """The data without its training set, with the detector's classes, and the metric.

    Args:
        spec: The experiment.
        class_map: The detector's.
    """
    values = spec.complete()
    data, metric = values["data"], values["metric"]
    if isinstance(data, Spec):
        parameters = signature_of(data.type).parameters
        changes: dict[str, Any] = {"train": None} if "train" in parameters else {}
        if "classes" in parameters:
            changes["classes"] = class_map.names
        if "val" in data.params and data.params["val"] is None:
            raise ConfigError("data.val is missing, so there is nothing to evaluate on", spec.type.__name__)
        try:
            data = data.replace(**changes).build()
        except ConfigError as error:
            raise error.below("data") from error.__cause__
    return data, metric.build() if isinstance(metric, Spec) else metric


def report(console: Console, result: Evaluation, per_class: dict[str, dict[str, float | None]]) -> None:
    """Prints the numbers over all classes and, where the metric has them, of each class."""
    console.print(result.table())
    if not per_class:
        return
    names = list(next(iter(per_class.values())))[:6]  # what fits on a terminal; the JSON has them all
    table = Table(title="by class", title_justify="left")
    table.add_column("class", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right")
    for class_name, values in per_class.items():
        table.add_row(class_name, *(show(values[name]) for name in names))
    console.print(table)
