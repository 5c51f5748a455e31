"""Average precision and recall as COCO defines them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field

from detcore.errors import DataError
from detcore.interfaces import Dataset, Metric
from detcore.structures import ImageDetections
from detcore_data.coco_backends import Backend, Evaluation, check_backend, evaluate
from detcore_data.coco_matching import AREAS
from detcore_data.collected import Collected
from detcore_data.records import Records

logger = logging.getLogger(__name__)

Count = Annotated[int, Field(ge=1)]


class CocoMetric(Metric):
    """Average precision and recall (Lin et al., "Microsoft COCO", arXiv 1405.0312), equal to pycocotools'.

    The ground truth is what the dataset has in its files, in their pixels: after its choice of classes and
    its ``policy``, before any transform. Regions to ignore count as crowd. A number is None where there is
    nothing to measure, for instance no object of that size.

    An image that is updated twice counts once: distributed samplers repeat images to fill up their last
    batch.

    The numbers are ``AP`` (mean over the IoUs 0.5, 0.55, ..., 0.95), ``AP50``, ``AP75``, ``APs``, ``APm``,
    ``APl`` (objects below 32 x 32, up to 96 x 96, above) and ``AR1``, ``AR10``, ``AR100``, ``ARs``,
    ``ARm``, ``ARl``; with ``classwise`` also ``AP/NAME`` for each class. Those of masks begin with
    ``segm_``.

    Args:
        iou_types: What is compared: boxes, masks, or both.
        backend: What computes the numbers, which are the same: ``numpy`` is this package's own code, many times
            as fast as ``pycocotools``, the reference; ``faster_coco_eval`` needs the package of that name.
        max_dets: Numbers of detections per image and class that count for the recalls; the last one counts
            for the precision too.
        classwise: Whether each class is measured on its own as well.
        class_agnostic: Whether all objects and detections are of one class, as for proposals.
        unseen: What becomes of images that were never updated: ``miss`` counts their objects as missed, as
            the reference does; ``skip`` leaves them out, for evaluation on a part of the dataset. Both are
            logged.
    """

    def __init__(
        self,
        *,
        iou_types: Annotated[tuple[Literal["bbox", "segm"], ...], Field(min_length=1)] = ("bbox",),
        backend: Backend = "numpy",
        max_dets: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 10, 100),
        classwise: bool = False,
        class_agnostic: bool = False,
        unseen: Literal["miss", "skip"] = "miss",
    ) -> None:
        check_backend(backend)
        if list(max_dets) != sorted(set(max_dets)):
            raise ValueError(f"max_dets should rise, got {max_dets}")
        if classwise and class_agnostic:
            raise ValueError("classwise and class_agnostic exclude each other; set one of them to false")
        self.class_agnostic = class_agnostic
        self.iou_types, self.backend, self.max_dets = iou_types, backend, max_dets
        self.classwise, self.unseen = classwise, unseen
        self._collected: Collected | None = None
        self._done: dict[str, Evaluation] | None = None

    def start(self, dataset: Dataset) -> None:
        """See :class:`~detcore.interfaces.Metric`.

        Raises:
            DataError: Masks are to be compared but the dataset has none, or two images have one id.
        """
        masks = "segm" in self.iou_types
        self._collected, self._done = Collected(dataset, masks=masks), None
        records = self._collected.records
        if masks and records.segmentations is None:
            raise DataError(
                f"{records.source}: iou_types has 'segm' but the dataset no masks; use with_masks=True"
            )
        if masks and not (records.sizes > 0).all():
            raise DataError(f"{records.source}: comparing masks needs the height and width of every image")

    def update(self, image_ids: Sequence[int], detections: Sequence[ImageDetections]) -> None:
        """See :class:`~detcore.interfaces.Metric`. An image that comes again replaces what it had.

        Raises:
            DataError: The metric was not started, an id is not one of the dataset's, or a detection has a
                label beyond the classes, or a score or coordinate that is no finite number.
        """
        self._done = None
        self._started().add(image_ids, detections)

    def compute(self) -> dict[str, float | None]:
        """See :class:`~detcore.interfaces.Metric`."""
        numbers: dict[str, float | None] = {}
        for iou_type, evaluation in self._evaluate().items():
            prefix = "" if iou_type == "bbox" else f"{iou_type}_"
            found = _summary(evaluation)
            if self.classwise:
                names = self._started().records.class_map.names
                found |= {f"AP/{name}": evaluation.precision(label=label) for label, name in enumerate(names)}
            numbers |= {prefix + name: value for name, value in found.items()}
        return numbers

    def per_class(self) -> dict[str, dict[str, float | None]]:
        """The same numbers for each class, by its name; of boxes, or of masks where only they count.

        None with ``class_agnostic``.
        """
        if self.class_agnostic:
            return {}
        evaluation = next(iter(self._evaluate().values()))
        names = self._started().records.class_map.names
        return {name: _summary(evaluation, label) for label, name in enumerate(names)}

    def reasons(self) -> dict[str, str]:
        """See :class:`~detcore.interfaces.Metric`."""
        records = self._counted()
        numbers = [*_summary_sizes(self.max_dets)]
        names = () if self.class_agnostic else records.class_map.names
        found: dict[str, str] = {}
        for label, name in [(None, ""), *enumerate(names)]:
            for number, size in numbers:
                why = _why_missing(records, label, size)
                if why is not None:
                    found[f"{number}/{name}" if name else number] = why
        prefixes = ["" if iou_type == "bbox" else f"{iou_type}_" for iou_type in self.iou_types]
        return {prefix + name: why for prefix in prefixes for name, why in found.items()}

    def _evaluate(self) -> dict[str, Evaluation]:
        """What was evaluated since the last update, or now."""
        collected = self._started()
        if self._done is not None:
            return self._done
        if collected.unseen:
            done = "their objects count as missed" if self.unseen == "miss" else "they are left out"
            records = collected.records
            logger.warning(
                "%s: %d of %d images were not evaluated; %s",
                records.source,
                collected.unseen,
                len(records),
                done,
            )
        self._done = {
            iou_type: evaluate(
                self._counted(), collected.found, iou_type, self.max_dets, self.backend, self.class_agnostic
            )
            for iou_type in self.iou_types
        }
        return self._done

    def _counted(self) -> Records:
        """The ground truth that counts."""
        collected = self._started()
        return collected.seen_records() if self.unseen == "skip" else collected.records

    def _started(self) -> Collected:
        if self._collected is None:
            raise DataError("the metric has no ground truth; call start(dataset) first")
        return self._collected


def _summary(evaluation: Evaluation, label: int | None = None) -> dict[str, float | None]:
    numbers = {
        "AP": evaluation.precision(label=label),
        "AP50": evaluation.precision(label=label, iou=0.5),
        "AP75": evaluation.precision(label=label, iou=0.75),
    }
    numbers |= {
        f"AP{size[0]}": evaluation.precision(label=label, size=size) for size in ("small", "medium", "large")
    }
    numbers |= {f"AR{count}": evaluation.recall(label=label, count=count) for count in evaluation.max_dets}
    return numbers | {
        f"AR{size[0]}": evaluation.recall(label=label, size=size) for size in ("small", "medium", "large")
    }


#: Least and greatest area of each size, as COCO has them; both ends are included.
_AREAS = dict(zip(("small", "medium", "large"), AREAS[1:].tolist(), strict=True))


def _summary_sizes(max_dets: Sequence[int]) -> list[tuple[str, str | None]]:
    """The names of :func:`_summary` and the size that each is about."""
    whole = ["AP", "AP50", "AP75", *(f"AR{count}" for count in max_dets)]
    sized = [(f"{kind}{size[0]}", size) for kind in ("AP", "AR") for size in _AREAS]
    return [*((name, None) for name in whole), *sized]


def _why_missing(records: Records, label: int | None, size: str | None) -> str | None:
    """Why there is no number for a class (all where None) and a size (all where None); None if there is one."""
    annotations = records.annotations
    mine = annotations.labels == label if label is not None else torch.ones_like(annotations.ignore)
    of_class = "" if label is None else " of this class"
    counted = mine & ~annotations.ignore
    if not counted.any():
        ignored = bool((mine & annotations.ignore & ~annotations.any_class).any())
        return f"n/a: all ground truth{of_class} is ignored" if ignored else f"n/a: no ground truth{of_class}"
    if size is None:
        return None
    low, high = _AREAS[size]
    in_size = counted & (annotations.areas >= low) & (annotations.areas <= high)
    return None if in_size.any() else f"n/a: no ground truth{of_class} of this size"
