"""Evaluation of a detector on a dataset, with no trainer around it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from detcore_data import Collected, ExampleBatch

from detcore.detectors import OptimizedDetector, optimize_for_inference
from detcore.errors import DataError
from detcore.interfaces import Dataset, Detector, Metric
from detcore.precision import InferencePrecision
from detcore.structures import ClassMap, ImageBatch, ImageDetections
from detcore_train.loader import EpochLoader, Shard, ShardedBatches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

#: Called after each batch with the number of its images.
Report = Callable[[int], None]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Args:
        values: The metric's numbers; None where there was nothing to measure.
        images: Number of images.
        seconds: Time for detection and metric.
        extra: More for the JSON.
        reasons: Why numbers are None, by their names.
    """

    values: Mapping[str, float | None]
    images: int
    seconds: float
    extra: Mapping[str, Any] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    def line(self) -> str:
        """``AP 0.353  AP50 0.632  ...``: the numbers over all classes, on one line."""
        return "  ".join(f"{name} {show(value)}" for name, value in self.values.items() if "/" not in name)

    def table(self) -> Table:
        """A Rich table of all numbers."""
        from rich.table import Table

        table = Table(caption=f"{self.images} images\nin {self.seconds:.1f} s", caption_justify="left")
        table.add_column("metric")
        table.add_column("value", justify="right")
        for name, value in self.values.items():
            table.add_row(name, show(value) if value is not None else self.reasons.get(name, show(None)))
        return table

    def to_json(self) -> str:
        """The numbers as JSON; null where there was nothing to measure, with the reason."""
        data = {"values": dict(self.values), "images": self.images, "seconds": round(self.seconds, 3)}
        return json.dumps({**data, "reasons": dict(self.reasons), **self.extra}, indent=1, ensure_ascii=False)

    def write(self, path: str | Path) -> Path:
        """Writes the JSON."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json() + "\n", encoding="utf-8")
        return path


def show(value: float | None) -> str:
    """A number with three digits, ``n/a`` for None."""
    return "n/a" if value is None else f"{value:.3f}"


def evaluate(
    detector: Detector,
    dataset: Dataset,
    metric: Metric | None = None,
    *,
    batch_size: int = 1,
    workers: int = 0,
    device: torch.device | str | None = None,
    precision: InferencePrecision = "auto",
    report: Report | None = None,
    collected: Collected | None = None,
) -> Evaluation:
    """Runs a detector over a dataset and measures its detections.

    Args:
        detector: Its modes are restored afterwards.
        dataset: Images and ground truth.
        metric: What to measure; ``CocoMetric()`` where None.
        batch_size: Images per step.
        workers: Processes that read and transform images; 0 does it in this one.
        device: Where to compute, for the detector too; its own device where None.
        precision: See :func:`for_prediction`.
        report: Called after each batch with the number of its images.
        collected: Gets the detections as well, to be analysed afterwards.

    Raises:
        DataError: The classes of dataset and detector differ.
    """
    if metric is None:
        from detcore_data import CocoMetric

        metric = CocoMetric()
    check_classes(detector.class_map, dataset.class_map)
    if device is not None:
        detector.to(device)
    begin = time.perf_counter()
    batches = EpochLoader(dataset, ShardedBatches(len(dataset), batch_size, Shard()), workers=workers)
    metric.start(dataset)
    predictor = for_prediction(detector, precision)
    with evaluating(predictor):
        for batch, found in detect_all(predictor, batches, device_of(detector)):
            metric.update(batch.image_ids, found)
            if collected is not None:
                collected.add(batch.image_ids, found)
            if report is not None:
                report(len(batch))
    values = metric.compute()
    return Evaluation(values, len(dataset), time.perf_counter() - begin, reasons=metric.reasons())


def detect_all(
    detector: Detector, batches: Iterable[ExampleBatch], device: torch.device
) -> Iterator[tuple[ExampleBatch, list[ImageDetections]]]:
    """Every batch with its detections in the pixels of the files, on the CPU."""
    for batch in batches:
        yield batch, detect(detector, batch.to(device, non_blocking=True))


@torch.no_grad()
def detect(detector: Detector, batch: ExampleBatch) -> list[ImageDetections]:
    """A batch's detections, in the pixels of the files, on the CPU. The detector is in evaluation mode."""
    images = as_images(detector, batch)
    return detector(images).to_original(images).to("cpu").unpad()  # type: ignore[no-any-return]


def as_images(detector: Detector, batch: ExampleBatch) -> ImageBatch:
    """The batch as the detector's network sees it, channels last in memory: convolutions are faster so."""
    images = detector.preprocess(batch.images, batch.geometry)
    return images.replace(pixels=images.pixels.contiguous(memory_format=torch.channels_last))


def for_prediction(detector: Detector, precision: InferencePrecision = "auto") -> Detector:
    """What predicts in a detector's place.

    Args:
        detector: The detector.
        precision: "32" is the detector as it is, as training evaluates it. "auto" and "bf16" are a copy of it that
            :func:`~detcore.detectors.optimize_for_inference` made: faster, with other rounding.
    """
    if precision == "32" or isinstance(detector, OptimizedDetector):
        return detector
    return optimize_for_inference(detector, precision)


@contextmanager
def evaluating(detector: Detector) -> Iterator[None]:
    """The detector in evaluation mode, each of its modules back in its own mode afterwards."""
    modes = {module: module.training for module in detector.modules()}
    detector.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def device_of(detector: Detector) -> torch.device:
    """Where the detector's parameters are."""
    parameter = next(detector.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def check_classes(detector: ClassMap, dataset: ClassMap) -> None:
    """Checks that labels mean the same to a detector and to a dataset.

    Raises:
        DataError: They do not; the message says which classes.
    """
    if detector.names == dataset.names:
        return
    unnamed = detector.names == tuple(f"class{label}" for label in range(len(detector)))
    if unnamed and len(detector) == len(dataset):
        return  # nobody has told the detector its classes' names
    raise DataError(
        f"the detector's classes ({', '.join(detector.names)}) are not the dataset's "
        f"({', '.join(dataset.names)}); give the dataset the detector's classes by name"
    )
