"""``detcore eval``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detcore_data import Collected, records_of
from detcore_eval.coco_results import read_results
from rich.console import Console
from rich.table import Table
from rich.text import Text

from detcore.allocator import keep_freed_memory
from detcore.component import Spec
from detcore.errors import ConfigError
from detcore.interfaces import Dataset, Detector, Metric
from detcore.precision import resolve_precision
from detcore.signature import signature_of
from detcore.structures import ClassMap, ImageDetections
from detcore_train.commands.common import (
    check_precision,
    experiment_spec,
    load_detector,
    progress_bar,
    read_experiment,
)
from detcore_train.commands.predict import evaluation_transforms
from detcore_train.commands.testtime import TestTime
from detcore_train.evaluation import Evaluation, device_of, evaluate, show
from detcore_train.interfaces import DataModule
from detcore_train.runfolder import experiment_of


@dataclass(frozen=True)
class Analysing:
    """What is looked at beside the metric's numbers.

    Args:
        folder: Where the report goes; None for no report.
        iou_type: Whether boxes or masks are compared.
        overlap: From which a detection finds an object.
        score: Lowest score of the detections whose errors are counted; None for the one with the best F1.
        worst: Images that are shown.
    """

    folder: Path | None = None
    iou_type: str = "bbox"
    overlap: float = 0.5
    score: float | None = None
    worst: int = 20

    def collect(self, dataset: Dataset) -> Collected | None:
        """What the detections are gathered in; None without a report.

        Raises:
            ConfigError: Masks are to be compared, but there are none; or the option is none of the choices.
        """
        if self.iou_type not in ("bbox", "segm"):
            raise ConfigError(f"--iou-type should be bbox or segm, got {self.iou_type!r}")
        if self.folder is None:
            return None
        collected = Collected(dataset, masks=self.iou_type == "segm")
        if collected.masks and collected.records.segmentations is None:
            raise ConfigError("--iou-type segm: the validation set has no masks; set with_masks: true")
        return collected

    def write(
        self,
        title: str,
        dataset: Dataset,
        collected: Collected,
        result: Evaluation,
        metric: Metric,
        source: Mapping[str, str],
    ) -> tuple[Path, Path]:
        """Analyses and writes; see :func:`~detcore_eval.report.write_report`."""
        from detcore_eval import analyse
        from detcore_eval.coco_results import write_results
        from detcore_eval.report import Report, write_report

        folder = self.folder or Path()
        most = getattr(metric, "max_dets", (100,))
        analysis = analyse(
            collected,
            overlap=self.overlap,
            score=self.score,
            max_dets=most[-1],
            iou_type="segm" if self.iou_type == "segm" else "bbox",
        )
        write_results(collected, folder / "detections.json")
        report = Report(title, dataset, analysis, result.values, result.reasons, self.worst, source)
        return write_report(report, folder, Console())


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
    precision: str = "auto",
    analysing: Analysing | None = None,
) -> None:
    """Evaluates, prints tables and writes the numbers; see the command's own help for the arguments."""
    console, arithmetic = Console(), check_precision(precision)
    analysing = analysing or Analysing()
    keep_freed_memory()
    file, overrides = split_arguments(target, arguments)
    spec = experiment_spec(read_experiment(file, overrides), file)
    detector, folder = load_detector(target, device)
    spec, detector, others = at_test_time(spec, detector, models, device, test_time or TestTime())
    data, metric = build_validation(spec, detector.class_map)
    val = validation_set(data, file)
    collected = analysing.collect(val)
    with progress_bar(console, "evaluating", len(val)) as advance:
        result = evaluate(
            detector,
            val,
            metric,
            batch_size=batch_size or data.val_batch_size,
            workers=data.workers if workers is None else workers,
            precision=arithmetic,
            report=advance,
            collected=collected,
        )
    path = out or (folder.parent if folder.suffix == ".safetensors" else folder) / "evaluation.json"
    source = {
        "checkpoint": ", ".join(map(str, (folder, *others))),
        "precision": resolve_precision(arithmetic, device_of(detector)),
    }
    finish(console, str(folder), val, metric, result, source, path, analysing, collected)


def run_on_detections(
    target: Path, arguments: Sequence[str], *, detections: Path, out: Path | None, analysing: Analysing
) -> None:
    """The same for detections in a file, without a detector; see the command's own help for the arguments."""
    console = Console()
    file, overrides = experiment_and_overrides(target, arguments)
    spec = experiment_spec(read_experiment(file, overrides), file)
    data, metric = build_validation(spec, None)
    val = validation_set(data, file)
    collected = analysing.collect(val)
    begin = time.perf_counter()
    metric.start(val)

    def sink(image_ids: Sequence[int], found: Sequence[ImageDetections]) -> None:
        metric.update(image_ids, found)
        if collected is not None:
            collected.add(image_ids, found)

    masks = analysing.iou_type == "segm" or "segm" in getattr(metric, "iou_types", ())
    records = records_of(val)
    read_results(detections, records, sink, masks=masks)
    values = metric.compute()
    result = Evaluation(values, len(records), time.perf_counter() - begin, reasons=metric.reasons())
    beside = detections.with_name(f"{detections.stem}.evaluation.json")
    path = out or (beside if analysing.folder is None else analysing.folder / "evaluation.json")
    source = {"detections": str(detections)}
    finish(console, str(detections), val, metric, result, source, path, analysing, collected)


def finish(
    console: Console,
    title: str,
    dataset: Dataset,
    metric: Metric,
    result: Evaluation,
    source: dict[str, str],
    path: Path,
    analysing: Analysing,
    collected: Collected | None,
) -> None:
    """Prints and writes what was found."""
    per_class = {name: dict(values) for name, values in metric.per_class().items()}
    result = replace(result, extra={**source, "per_class": per_class})
    report(console, result, per_class if collected is None else {})
    if collected is not None:
        for written in analysing.write(title, dataset, collected, result, metric, source):
            console.print(f"report: {written}", soft_wrap=True)
    result.write(path)
    what, name = next(iter(source.items()))
    console.print(f"{what}: {name}; numbers: {path}", soft_wrap=True)
    print(result.line())  # noqa: T201 - the last line is exactly this


def validation_set(data: DataModule, file: str) -> Dataset:
    """The dataset to evaluate on.

    Raises:
        ConfigError: There is none.
    """
    if data.val is None:
        raise ConfigError(f"{file}: data.val is missing, so there is nothing to evaluate on")
    return data.val


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


def experiment_and_overrides(target: Path, arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The experiment's file, where the first argument may be one, or a run; and the overrides."""
    if arguments and "=" not in arguments[0]:
        return arguments[0], list(arguments[1:])
    own = experiment_of(target) if target.is_dir() or target.suffix == ".safetensors" else None
    return str(own or target), list(arguments)


def build_validation(spec: Spec[Any], class_map: ClassMap | None) -> tuple[DataModule, Metric]:
    """The data without its training set, with the detector's classes, and the metric.

    Args:
        spec: The experiment.
        class_map: The detector's; the data has its own classes where None.
    """
    values = spec.complete()
    data, metric = values["data"], values["metric"]
    if isinstance(data, Spec):
        parameters = signature_of(data.type).parameters
        changes: dict[str, Any] = {"train": None} if "train" in parameters else {}
        if "classes" in parameters and class_map is not None:
            changes["classes"] = class_map.names
        if "val" in data.params and data.params["val"] is None:
            raise ConfigError("data.val is missing, so there is nothing to evaluate on", spec.type.__name__)
        try:
            data = data.replace(**changes).build()
        except ConfigError as error:
            raise error.below("data") from error.__cause__
    return data, metric.build() if isinstance(metric, Spec) else metric


def report(console: Console, result: Evaluation, per_class: Mapping[str, Mapping[str, float | None]]) -> None:
    """Prints the numbers over all classes and, where the metric has them, of each class."""
    console.print(result.table())
    if not per_class:
        return
    names = list(next(iter(per_class.values())))[:6]  # what fits on a terminal; the JSON has them all
    table = Table(title="by class", title_justify="left")
    table.add_column("class", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right")
    notes = []
    for class_name, values in per_class.items():
        table.add_row(Text(class_name), *(show(values[name]) for name in names))
        why = [result.reasons.get(f"{name}/{class_name}") for name in names if values[name] is None]
        notes += [f"{class_name}: {reason}" for reason in dict.fromkeys(why) if reason]
    if notes:
        table.caption, table.caption_justify = Text("\n".join(notes)), "left"
    console.print(table)
