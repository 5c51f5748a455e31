"""Checks of metrics, on a dataset of five made-up pictures."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from detcore.interfaces import Metric
from detcore.structures import ImageDetections
from detcore.testing.checking import Trial, check, probe
from detcore.testing.examples import MadeUpDataset

Found = dict[int, ImageDetections]


def _metric(trial: Trial) -> tuple[Any, MadeUpDataset]:
    metric, dataset = trial.component(), MadeUpDataset(seed=trial.seed)
    trial.note(f"MadeUpDataset(seed={trial.seed})")
    metric.start(dataset)
    return metric, dataset


def _found(dataset: MadeUpDataset, *, shift: float = 0.0, drop: int = 0) -> Found:
    """Detections of every object, moved by some pixels and without the first few of each image."""
    found = {}
    for index in range(len(dataset)):
        item = dataset[index]
        boxes = item["boxes"].as_subclass(Tensor)[drop:] + shift
        scores = torch.linspace(0.9, 0.5, len(boxes)) if len(boxes) else torch.zeros(0)
        found[item["image_id"]] = ImageDetections(boxes, scores, item["labels"][drop:])
    return found


def _nothing(dataset: MadeUpDataset) -> Found:
    none = ImageDetections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    return dict.fromkeys(_found(dataset), none)


def _evaluate(metric: Any, dataset: MadeUpDataset, found: Found, batch: int = 5) -> dict[str, float | None]:
    metric.start(dataset)
    ids = list(found)
    for first in range(0, len(ids), batch):
        some = ids[first : first + batch]
        metric.update(some, [found[i] for i in some])
    numbers: dict[str, float | None] = metric.compute()
    return numbers


@probe(Metric)
def measure_once(metric: Any, trial: Trial) -> Any:
    """The numbers of imperfect detections."""
    dataset = MadeUpDataset(seed=trial.seed)
    return _evaluate(metric, dataset, _found(dataset, shift=1.5))


@check(Metric, cases=("all", "none", "some"))
def metric_gives_numbers(trial: Trial) -> None:
    """It gives finite numbers, or None, by name."""
    metric, dataset = _metric(trial)
    found = {"all": _found(dataset), "none": _nothing(dataset), "some": _found(dataset, drop=1)}[trial.case]
    numbers = _evaluate(metric, dataset, found)
    trial.require(isinstance(numbers, dict) and len(numbers) > 0, f"it gives {numbers!r}")
    for name, value in numbers.items():
        trial.require(isinstance(name, str), f"{name!r} is no text")
        good = value is None or (isinstance(value, float) and math.isfinite(value))
        trial.require(good, f"{name} is {value!r}")


@check(Metric)
def metric_tells_good_from_bad(trial: Trial) -> None:
    """Finding every object and finding none give different numbers."""
    metric, dataset = _metric(trial)
    best = _evaluate(metric, dataset, _found(dataset))
    worst = _evaluate(trial.component(), dataset, _nothing(dataset))
    trial.require(best != worst, f"both are {best}")


@check(Metric, cases=("1", "2", "3"), compares=True)
def metric_ignores_batches(trial: Trial) -> None:
    """The numbers do not depend on how the images come in batches."""
    metric, dataset = _metric(trial)
    found = _found(dataset, shift=1.5)
    wanted = _evaluate(metric, dataset, found)
    got = _evaluate(trial.component(), dataset, found, int(trial.case))
    trial.same(got, wanted, f"in batches of {trial.case}, the numbers")


@check(Metric, compares=True)
def metric_ignores_order(trial: Trial) -> None:
    """The numbers do not depend on the order of the images."""
    metric, dataset = _metric(trial)
    found = _found(dataset, shift=1.5)
    wanted = _evaluate(metric, dataset, found)
    backwards = dict(reversed(found.items()))
    trial.same(_evaluate(trial.component(), dataset, backwards), wanted, "in reverse order, the numbers")


@check(Metric, compares=True)
def metric_start_forgets(trial: Trial) -> None:
    """``start`` forgets what came before."""
    metric, dataset = _metric(trial)
    wanted = _evaluate(trial.component(), dataset, _found(dataset, drop=1))
    _evaluate(metric, dataset, _found(dataset))
    trial.same(_evaluate(metric, dataset, _found(dataset, drop=1)), wanted, "after another run, the numbers")


@check(Metric, compares=True)
def metric_compute_can_be_repeated(trial: Trial) -> None:
    """``compute`` gives the same when it is called again."""
    metric, dataset = _metric(trial)
    first = _evaluate(metric, dataset, _found(dataset, shift=1.5))
    trial.same(metric.compute(), first, "the second time, the numbers")
