"""``detcore inspect data``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detcore_data.inspection import Finding, Inspected, Options, inspect_overlap, inspect_split
from detcore_data.inspection.findings import Instance, by_severity
from detcore_data.inspection.split import steps
from rich.console import Console

from detcore.component import Spec, make
from detcore.errors import DetcoreError
from detcore.interfaces import Dataset
from detcore_train.commands.common import experiment_spec, progress_bar, read_experiment
from detcore_train.experiment import Experiment
from detcore_train.inspection.page import write_page
from detcore_train.inspection.priors import check_priors
from detcore_train.inspection.report import Report, show, write_json
from detcore_train.inspection.splits import splits_of


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
    splits, findings = splits_of(values["data"])
    inspected: list[Inspected] = []
    for split in splits:
        with progress_bar(console, f"inspecting {split.name}", steps(split.dataset, options)) as advance:
            # where there are several training sets, another one may have the objects that this one lacks
            alone = split.name == "train"
            inspected.append(
                inspect_split(
                    split.name, split.dataset, options, policy=split.policy, trained_on=alone, advance=advance
                )
            )
        findings += inspected[-1].findings
    if inspected:
        findings += _differing_classes(inspected)
    trained = [(split, seen) for split, seen in zip(splits, inspected, strict=True) if split.of == "train"]
    judged = [seen for split, seen in zip(splits, inspected, strict=True) if split.of == "val"]
    for _, seen in trained:
        findings += [finding for val in judged for finding in inspect_overlap(seen, val, options.examples)]
    for split, seen in trained:
        of_priors = _priors(values["model"], split.dataset, seen, options, console)
        findings += of_priors
        if any(finding.check == "model-cannot-be-built" for finding in of_priors):
            break
    return Report(file, tuple(inspected), tuple(by_severity(findings)))


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


def _differing_classes(inspected: Sequence[Inspected]) -> list[Finding]:
    """One finding for each part whose classes are not the first one's."""
    first, findings = inspected[0], []
    wanted = first.records.class_map.names
    for other in inspected[1:]:
        names = other.records.class_map.names
        if names == wanted:
            continue
        both = {first.name, other.name} == {"train", "val"}
        what = "training and validation set" if both else f"{first.name} and {other.name}"
        findings.append(
            Finding(
                "classes-differ",
                other.name,
                "error",
                len(set(wanted) ^ set(names)) or len(wanted),
                f"{what} have different classes, or another order of them",
                "give those to use, in order, as data.classes",
                (
                    Instance(detail=f"{first.name}: {', '.join(wanted)}"),
                    Instance(detail=f"{other.name}: {', '.join(names)}"),
                ),
            )
        )
    return findings
