"""``detcore inspect data``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detcore_data.inspection import Finding, Inspected, Options, inspect_overlap, inspect_split
from detcore_data.inspection.findings import Instance, by_severity
from detcore_data.inspection.split import steps
from rich.console import Console

from detcore.component import Spec, make
from detcore.errors import ConfigError, DataError, DetcoreError
from detcore.interfaces import Dataset
from detcore.signature import signature_of
from detcore_train.commands.common import experiment_spec, progress_bar, read_experiment
from detcore_train.experiment import Experiment
from detcore_train.inspection.page import write_page
from detcore_train.inspection.priors import check_priors
from detcore_train.inspection.report import Report, show, write_json

SPLITS = ("train", "val")


def run(
    file: str,
    overrides: Sequence[str],
    *,
    json_file: Path | None,
    html_file: Path | None,
    options: Options,
) -> None:
    """Inspects, prints and writes; see the command's own help for the arguments. Exits with 1 for errors."""
    console = Console()
    spec = experiment_spec(read_experiment(file, overrides), file)
    report = inspect_experiment(spec, file, options, console)
    show(report, console)
    if json_file is not None:
        write_json(report, json_file)
    if html_file is not None:
        write_page(report, html_file)
    for path in (json_file, html_file):
        if path is not None:
            console.print(f"written: {path}", soft_wrap=True)
    if report.count("error"):
        sys.exit(1)


def inspect_experiment(spec: Spec[Experiment], file: str, options: Options, console: Console) -> Report:
    """Everything about an experiment's data, without training.

    Args:
        spec: The experiment.
        file: Its name, for the report.
        options: How closely to look.
        console: Where progress is shown.

    Raises:
        ConfigError: The experiment has neither a training nor a validation set.
    """
    values = spec.complete()
    datasets, findings = _datasets(values["data"])
    inspected: dict[str, Inspected] = {}
    for name, (dataset, policy) in datasets.items():
        with progress_bar(console, f"inspecting {name}", steps(dataset, options)) as advance:
            inspected[name] = inspect_split(
                name, dataset, options, policy=policy, trained_on=name == "train", advance=advance
            )
        findings += inspected[name].findings
    if len(inspected) == 2:
        findings += [
            *_differing_classes(inspected),
            *inspect_overlap(inspected["train"], inspected["val"], options.examples),
        ]
    if "train" in inspected:
        dataset = datasets["train"][0]
        findings += _priors(values["model"], dataset, inspected["train"], options, console)
    return Report(file, tuple(inspected.values()), tuple(by_severity(findings)))


def _priors(
    model: Any, dataset: Dataset, split: Inspected, options: Options, console: Console
) -> list[Finding]:
    try:
        detector = make(model, num_classes=len(dataset.class_map)).train()
    except DetcoreError as error:  # of its configuration, or of weights that cannot be had
        what, remedy = "the detector cannot be made", "correct the experiment's model, then inspect again"
        why = (Instance(detail=str(error)),)
        return [Finding("model-cannot-be-built", split.name, "error", 1, what, remedy, why)]
    transforms = tuple(getattr(dataset, "transforms", ()))
    with progress_bar(console, "matching priors", len(options.chosen(len(dataset)))) as advance:
        return list(check_priors(detector, split, transforms, options, advance))


def _datasets(data: Any) -> tuple[dict[str, tuple[Dataset, Any]], list[Finding]]:
    """The datasets of an experiment with their own policies, made so that they hide nothing; and failures."""
    parts = (
        data.complete() if isinstance(data, Spec) else {name: getattr(data, name, None) for name in SPLITS}
    )
    if not any(parts.get(name) is not None for name in SPLITS):
        raise ConfigError("data has neither 'train' nor 'val', so there is nothing to inspect")
    shared = {key: parts[key] for key in ("root", "classes") if parts.get(key) is not None}
    found: dict[str, tuple[Dataset, Any]] = {}
    findings: list[Finding] = []
    for name in SPLITS:
        part = parts.get(name)
        if part is None:
            continue
        policy = part.complete().get("policy") if isinstance(part, Spec) else None
        try:
            with _quiet():
                found[name] = (make(_hiding_nothing(part), **shared), policy)
        except (ConfigError, DataError) as error:
            findings.append(_unreadable(name, error))
            continue
        shared.setdefault("classes", found[name][0].class_map.names)
    return found, findings


def _hiding_nothing(part: Any) -> Any:
    if not isinstance(part, Spec):
        return part
    parameters = signature_of(part.type).parameters
    changes = {"policy": "clip", "filter_empty": False}
    return part.replace(**{name: value for name, value in changes.items() if name in parameters})


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the datasets' own warnings about what the report will say anyway."""
    logger = logging.getLogger("detcore_data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _unreadable(name: str, error: Exception) -> Finding:
    return Finding(
        "cannot-be-read",
        name,
        "error",
        1,
        "the dataset cannot be made",
        "correct what the message names, then inspect again",
        (Instance(detail=str(error)),),
    )


def _differing_classes(inspected: dict[str, Inspected]) -> list[Finding]:
    train, val = (inspected[name].records.class_map.names for name in SPLITS)
    if train == val:
        return []
    return [
        Finding(
            "classes-differ",
            "val",
            "error",
            len(set(train) ^ set(val)) or len(train),
            "training and validation set have different classes, or another order of them",
            "give those to use, in order, as data.classes",
            (Instance(detail=f"train: {', '.join(train)}"), Instance(detail=f"val: {', '.join(val)}")),
        )
    ]
