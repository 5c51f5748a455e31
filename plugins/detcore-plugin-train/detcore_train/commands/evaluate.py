"""``detcore eval``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from detcore.component import Spec
from detcore.errors import ConfigError
from detcore.interfaces import Detector, Metric
from detcore.signature import signature_of
from detcore.structures import ClassMap
from detcore_train.commands.common import experiment_spec, load_detector, progress_bar, read_experiment
from detcore_train.commands.predict import evaluation_transforms
from detcore_train.commands.testtime import TestTime
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
    models: Sequence[Path] = (),
    test_time: TestTime | None = None,
) -> None:
    """Evaluates, prints tables and writes the numbers; see the command's own help for the arguments."""
    console = Console()
    file, overrides = split_arguments(target, arguments)
    spec = experiment_spec(read_experiment(file, overrides), file)
    detector, folder = load_detector(target, device)
    spec, detector, others = at_test_time(spec, detector, models, device, test_time or TestTime())
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
    extra = {"checkpoint": ", ".join(map(str, (folder, *others))), "per_class": numbers}
    Evaluation(result.values, result.images, result.seconds, extra).write(path)
    console.print(f"checkpoint: {folder}; numbers: {path}", soft_wrap=True)
    print(result.line())  # noqa: T201 - the last line is exactly this


def at_test_time(
    spec: Spec[Any], detector: Detector, models: Sequence[Path], device: str, options: TestTime
) -> tuple[Spec[Any], Detector, list[Path]]:
    """The experiment and the detector, with what the options add; and the further checkpoints.

    Where the detector prepares its images itself (several checkpoints, tiles), the dataset's transforms of
    evaluation become the detector's, and the dataset gives images as they are in the files.

    Args:
        spec: The experiment.
        detector: The first detector; the experiment's transforms are its own.
        models: Further checkpoints, each with the transforms of its own run.
        device: Where to put them.
        options: What is to be done.
    """
    loaded = [load_detector(model, device) for model in models]
    val = _validation_set(spec)
    transforms = tuple(val.complete().get("transforms", ())) if val is not None else ()
    built = tuple(part.build() if isinstance(part, Spec) else part for part in transforms)
    members = [(detector, built)]
    for other, folder in loaded:
        own = evaluation_transforms(folder)
        members.append((other, built if own is None else own))
    whole, left = options.compose(members)
    if transforms and not left and val is not None:
        data = spec.complete()["data"].replace(val=val.replace(transforms=()))
        spec = spec.replace(data=data)
    return spec, whole, [folder for _, folder in loaded]


def _validation_set(spec: Spec[Any]) -> Spec[Any] | None:
    data = spec.complete()["data"]
    val = data.params.get("val") if isinstance(data, Spec) else None
    return val if isinstance(val, Spec) and "transforms" in signature_of(val.type).parameters else None


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
