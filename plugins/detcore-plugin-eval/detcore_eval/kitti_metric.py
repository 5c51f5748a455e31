"""Average precision as KITTI's object benchmark defines it, for 2D boxes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
from detcore_data import Collected, EpochSeeded, KittiObjects
from pydantic import Field

from detcore.errors import DataError, did_you_mean
from detcore.interfaces import Dataset, Metric
from detcore.structures import ImageDetections
from detcore_eval.kitti_matching import (
    DIFFICULTIES,
    Difficulty,
    Scene,
    average_precision,
    precisions,
)

logger = logging.getLogger(__name__)

#: Overlaps of the benchmark's classes.
MIN_OVERLAPS = {"Car": 0.7, "Pedestrian": 0.5, "Cyclist": 0.5}
#: Classes whose objects may be taken for another: neither right nor wrong.
NEIGHBOURS = {"Car": "Van", "Pedestrian": "Person_sitting"}

Three = Annotated[tuple[float, ...], Field(min_length=3, max_length=3)]
Overlap = Annotated[float, Field(ge=0, lt=1)]


class KittiMetric(Metric):
    """Average precision of KITTI's object benchmark (Geiger et al., CVPR 2012), as its development kit has it.

    Objects count by difficulty: easy, moderate and hard ask for a height in pixels, and allow for occlusion and
    truncation. Objects beyond that, ``DontCare`` regions, vans where cars are looked for and sitting persons
    where pedestrians are, are neither to be found nor wrong. Detections lower than a difficulty's height do
    not count. The ground truth is what the label files have, whatever classes the dataset was told to use,
    ignore or merge; of a dataset other than ``KittiDataset`` all objects count as fully visible.

    The numbers are ``AP``, the mean over the classes at moderate difficulty (the benchmark ranks by it), and
    ``AP_easy``, ``AP_moderate``, ``AP_hard``, also for each class as ``AP_easy/Car``. A number is None where
    there is nothing to measure.

    Args:
        min_overlaps: Overlap (IoU) above which an object counts as found, per class that is measured; None
            for the benchmark's: 0.7 for cars, 0.5 for pedestrians and cyclists. Those that the dataset has
            are measured.
        recall_points: 40 takes the mean of the precision at the recalls 1/40, 2/40, ..., 1 (since October
            2019), 11 at 0, 0.1, ..., 1 (before).
        sample_once: Whether each detection's score stands for one recall at most, as in the kit. With up to 40
            objects of a class the kit's precision is 0 at high recalls, whatever was found: n objects found
            without an error have an AP of (n - 1) / 40. With more objects it makes no difference.
        min_heights: Least height of a box for easy, moderate and hard, in pixels.
        max_occlusions: Highest level of occlusion, likewise.
        max_truncations: Greatest part that is out of the image, likewise.
    """

    def __init__(
        self,
        *,
        min_overlaps: Mapping[str, Overlap] | None = None,
        recall_points: Literal[40, 11] = 40,
        sample_once: bool = False,
        min_heights: Three = (40.0, 25.0, 25.0),
        max_occlusions: Three = (0.0, 1.0, 2.0),
        max_truncations: Three = (0.15, 0.3, 0.5),
    ) -> None:
        if min_overlaps is not None and not min_overlaps:
            raise ValueError("min_overlaps names no class; leave it out for the benchmark's")
        self.min_overlaps, self.recall_points = min_overlaps, recall_points
        self.sample_once = sample_once
        self.difficulties = {
            name: Difficulty(*limits)
            for name, *limits in zip(DIFFICULTIES, min_heights, max_occlusions, max_truncations, strict=True)
        }
        self._collected: Collected | None = None

    def start(self, dataset: Dataset) -> None:
        """See :class:`~detcore.interfaces.Metric`.

        Raises:
            DataError: The dataset has none of the classes, or not one that was asked for; or two images have
                one id.
        """
        names = dataset.class_map.names
        wanted = MIN_OVERLAPS if self.min_overlaps is None else self.min_overlaps
        for name in wanted:
            if self.min_overlaps is not None and name not in names:
                near = did_you_mean(name, names)
                raise DataError(f"min_overlaps: the dataset has no class {name!r}; {near or list(names)}")
        self._overlaps = {name: wanted[name] for name in wanted if name in names}
        if not self._overlaps:
            raise DataError(
                f"the dataset's classes ({', '.join(names)}) are none of KITTI's ({', '.join(wanted)}); name "
                "those to measure in min_overlaps"
            )
        self._collected = Collected(dataset)
        self._objects = _objects_of(dataset, self._collected)

    def update(self, image_ids: Sequence[int], detections: Sequence[ImageDetections]) -> None:
        """See :class:`~detcore.interfaces.Metric`. An image that comes again replaces what it had.

        Raises:
            DataError: The metric was not started, or detections do not fit the dataset.
        """
        self._started().add(image_ids, detections)

    def compute(self) -> dict[str, float | None]:
        """See :class:`~detcore.interfaces.Metric`."""
        by_class = self.per_class()
        numbers: dict[str, float | None] = {}
        for difficulty in DIFFICULTIES:
            values = [row[f"AP_{difficulty}"] for row in by_class.values()]
            known = [value for value in values if value is not None]
            numbers[f"AP_{difficulty}"] = sum(known) / len(known) if known else None
        each = {f"{number}/{name}": v for name, row in by_class.items() for number, v in row.items()}
        return {"AP": numbers["AP_moderate"], **numbers, **each}

    def per_class(self) -> dict[str, dict[str, float | None]]:
        """See :class:`~detcore.interfaces.Metric`."""
        collected = self._started()
        if collected.unseen:
            logger.warning(
                "%s: %d of %d images were not evaluated; their objects count as missed",
                collected.records.source,
                collected.unseen,
                len(collected.records),
            )
        scenes = self._scenes()
        return {name: self._of_class(scenes, name) for name in self._overlaps}

    def _of_class(self, scenes: list[Scene], name: str) -> dict[str, float | None]:
        numbers: dict[str, float | None] = {}
        neighbour, overlap = NEIGHBOURS.get(name), self._overlaps[name]
        for level, difficulty in self.difficulties.items():
            values = precisions(scenes, name, neighbour, overlap, difficulty, once=self.sample_once)
            average = None if values is None else average_precision(values, self.recall_points)
            numbers[f"AP_{level}"] = average
        return numbers

    def reasons(self) -> dict[str, str]:
        """See :class:`~detcore.interfaces.Metric`."""
        self._started()
        found: dict[str, str] = {}
        for level in DIFFICULTIES:
            missing = {}
            for name in self._overlaps:
                mine = [i for i, other in enumerate(self._objects.names) if other == name]
                if not mine:
                    missing[name] = "n/a: no ground truth of this class"
                elif not any(self._counts(i, self.difficulties[level]) for i in mine):
                    missing[name] = f"n/a: no ground truth of this class that is {level}"
            found |= {f"AP_{level}/{name}": why for name, why in missing.items()}
            if len(missing) == len(self._overlaps):
                found[f"AP_{level}"] = f"n/a: no ground truth that is {level}"
        if "AP_moderate" in found:
            found["AP"] = found["AP_moderate"]
        return found

    def _counts(self, index: int, difficulty: Difficulty) -> bool:
        objects = self._objects
        height = float(objects.boxes[index, 3] - objects.boxes[index, 1])
        return difficulty.admits(height, int(objects.occlusion[index]), float(objects.truncation[index]))

    def _scenes(self) -> list[Scene]:
        collected, objects = self._started(), self._objects
        order = np.argsort(objects.image_ids.numpy(), kind="stable")
        ids = objects.image_ids.numpy()[order]
        names = collected.records.class_map.names
        scenes = []
        for image_id in sorted(collected.records.image_ids.tolist()):
            mine = order[slice(*np.searchsorted(ids, [image_id, image_id + 1]).tolist())]
            found = collected.found.get(image_id)
            scenes.append(
                Scene(
                    names=tuple(objects.names[i] for i in mine),
                    boxes=objects.boxes.numpy()[mine],
                    occlusion=objects.occlusion.numpy()[mine],
                    truncation=objects.truncation.numpy()[mine],
                    found=np.zeros((0, 4)) if found is None else found.boxes.numpy().astype(np.float64),
                    scores=np.zeros(0) if found is None else found.scores.numpy().astype(np.float64),
                    found_names=() if found is None else tuple(names[i] for i in found.labels.tolist()),
                )
            )
        return scenes

    def _started(self) -> Collected:
        if self._collected is None:
            raise DataError("the metric has no ground truth; call start(dataset) first")
        return self._collected


def _objects_of(dataset: Dataset, collected: Collected) -> KittiObjects:
    """What the label files have; of other datasets, their objects as if fully visible."""
    while isinstance(dataset, EpochSeeded):
        dataset = dataset.dataset
    objects = getattr(dataset, "objects", None)
    if isinstance(objects, KittiObjects):
        return objects
    import torch

    records = collected.records
    annotations, names = records.annotations, records.class_map.names
    boxes = annotations.boxes.clone()
    boxes[:, 2:] += boxes[:, :2]
    ignored = annotations.ignore.tolist()
    return KittiObjects(
        image_ids=records.image_ids[records.image_of],
        names=tuple(
            "DontCare" if ignore else names[label]
            for label, ignore in zip(annotations.labels.tolist(), ignored, strict=True)
        ),
        boxes=boxes,
        truncation=torch.zeros(len(annotations), dtype=torch.float64),
        occlusion=torch.zeros(len(annotations), dtype=torch.int64),
    )
