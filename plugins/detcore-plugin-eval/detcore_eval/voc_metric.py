"""Average precision as Pascal VOC defines it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from detcore_data import Collected
from jaxtyping import Bool, Float, Int
from pydantic import Field

from detcore.errors import DataError
from detcore.interfaces import Dataset, Metric
from detcore.structures import ImageDetections
from detcore_eval.flat import Flat, side_by_side
from detcore_eval.matching import image_pairs, ranks

logger = logging.getLogger(__name__)

Overlap = Annotated[float, Field(gt=0, le=1)]


class VOCMetric(Metric):
    """Average precision of Pascal VOC (Everingham et al., IJCV 2010 and 2015), as its development kit has it.

    In the order of their scores over all images, detections of a class are compared with the object of that
    class that they overlap most, whether it was found before or not. An object is found once; the second time
    counts as wrong. Objects to ignore (``difficult``) need not be found, and finding them is neither right nor
    wrong: read them with ``VocDataset(difficult="ignore")``.

    The numbers are ``AP``, the mean over classes and ``iou_thrs``, and ``AP50`` and so on for each of these;
    with ``classwise`` also ``AP/NAME``. A number is None where there is nothing to measure.

    Args:
        iou_thrs: Overlaps (IoU) from which an object counts as found.
        eval_mode: ``area`` is the area under the curve with precision made to fall (since 2010), ``11points``
            the mean of the precision at the recalls 0, 0.1, ..., 1 (up to 2009).
        use_legacy_coordinate: Whether a box includes its last pixel, so that 1 is added to widths and
            heights. The development kit does so; a ``VocDataset`` with ``origin=1`` has boxes that need no
            such addition, one with ``origin=0`` needs it for the kit's numbers.
        classwise: Whether each class is measured on its own as well.
        unseen: What becomes of images that were never updated: ``miss`` counts their objects as missed;
            ``skip`` leaves them out. Both are logged.
    """

    def __init__(
        self,
        *,
        iou_thrs: Annotated[tuple[Overlap, ...], Field(min_length=1)] = (0.5,),
        eval_mode: Literal["area", "11points"] = "area",
        use_legacy_coordinate: bool = False,
        classwise: bool = False,
        unseen: Literal["miss", "skip"] = "miss",
    ) -> None:
        if len(set(iou_thrs)) < len(iou_thrs):
            raise ValueError(f"iou_thrs should not name an overlap twice, got {iou_thrs}")
        self.iou_thrs, self.eval_mode = iou_thrs, eval_mode
        self.use_legacy_coordinate, self.classwise, self.unseen = use_legacy_coordinate, classwise, unseen
        self._collected: Collected | None = None

    def start(self, dataset: Dataset) -> None:
        """See :class:`~detcore.interfaces.Metric`.

        Raises:
            DataError: Two images have one id.
        """
        self._collected = Collected(dataset)

    def update(self, image_ids: Sequence[int], detections: Sequence[ImageDetections]) -> None:
        """See :class:`~detcore.interfaces.Metric`. An image that comes again replaces what it had.

        Raises:
            DataError: The metric was not started, or detections do not fit the dataset.
        """
        self._started().add(image_ids, detections)

    def compute(self) -> dict[str, float | None]:
        """See :class:`~detcore.interfaces.Metric`."""
        by_class = self.per_class()
        names = list(next(iter(by_class.values()))) if by_class else ["AP"]
        numbers = {name: _mean([values[name] for values in by_class.values()]) for name in names}
        if self.classwise:
            numbers |= {f"AP/{name}": values["AP"] for name, values in by_class.items()}
        return numbers

    def per_class(self) -> dict[str, dict[str, float | None]]:
        """See :class:`~detcore.interfaces.Metric`."""
        collected = self._started()
        if collected.unseen:
            done = "their objects count as missed" if self.unseen == "miss" else "they are left out"
            logger.warning(
                "%s: %d of %d images were not evaluated; %s",
                collected.records.source,
                collected.unseen,
                len(collected.records),
                done,
            )
        flat = side_by_side(collected, only_seen=self.unseen == "skip")
        best = _best_overlaps(flat, 1.0 if self.use_legacy_coordinate else 0.0)
        columns = [_average_precisions(flat, *best, threshold, self.eval_mode) for threshold in self.iou_thrs]
        rows = zip(*columns, strict=True)
        names = [f"AP{threshold * 100:g}" for threshold in self.iou_thrs]
        return {
            name: {"AP": _mean(row), **dict(zip(names, row, strict=True))}
            for name, row in zip(flat.names, rows, strict=True)
        }

    def reasons(self) -> dict[str, str]:
        """See :class:`~detcore.interfaces.Metric`."""
        collected = self._started()
        records = collected.seen_records() if self.unseen == "skip" else collected.records
        annotations = records.annotations
        numbers = ("AP", *(f"AP{threshold * 100:g}" for threshold in self.iou_thrs))
        found: dict[str, str] = {}
        for label, name in [(None, ""), *enumerate(records.class_map.names)]:
            mine = annotations.labels == label if label is not None else annotations.labels >= 0
            if (mine & ~annotations.ignore).any():
                continue
            of_class = "" if label is None else " of this class"
            ignored = bool((mine & annotations.ignore & ~annotations.any_class).any())
            why = (
                f"n/a: all ground truth{of_class} is ignored"
                if ignored
                else f"n/a: no ground truth{of_class}"
            )
            found |= {f"{number}/{name}" if name else number: why for number in numbers}
        return found

    def _started(self) -> Collected:
        if self._collected is None:
            raise DataError("the metric has no ground truth; call start(dataset) first")
        return self._collected


def _best_overlaps(flat: Flat, extra: float) -> tuple[Int[np.ndarray, "D"], Float[np.ndarray, "D"]]:
    """Per detection the object of its class that it overlaps most (the first of two alike), and by how much."""
    best, overlap = np.full(len(flat.det_scores), -1, np.int64), np.zeros(len(flat.det_scores))
    for det, gt in image_pairs(flat):
        same = (flat.det_labels[det] == flat.gt_labels[gt]) | flat.gt_any[gt]
        det, gt = det[same], gt[same]
        values = _iou(flat.det_boxes[det], flat.gt_boxes[gt], extra)
        order = np.lexsort((gt, -values, det))
        det, gt, values = det[order], gt[order], values[order]
        first = ranks(det) == 0
        best[det[first]], overlap[det[first]] = gt[first], values[first]
    return best, overlap


def _iou(a: np.ndarray, b: np.ndarray, extra: float) -> np.ndarray:
    """Of x, y, w, h; ``extra`` is added to all widths and heights."""
    high = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    extent = (high - np.maximum(a[:, :2], b[:, :2]) + extra).clip(min=0)
    intersection = extent.prod(axis=1)
    union = (a[:, 2:] + extra).prod(axis=1) + (b[:, 2:] + extra).prod(axis=1) - intersection
    iou: np.ndarray = np.divide(intersection, union, out=np.zeros_like(union), where=intersection > 0)
    return iou


def _average_precisions(
    flat: Flat, best: np.ndarray, overlap: np.ndarray, threshold: float, mode: str
) -> list[float | None]:
    order = np.lexsort((np.arange(len(best)), -flat.det_scores, flat.det_labels))
    labels, target, near = flat.det_labels[order], best[order], overlap[order] >= threshold
    aimed = np.flatnonzero(near)
    ignored = np.zeros(len(order), np.bool_)
    ignored[aimed] = flat.gt_ignore[target[aimed]]
    first = np.zeros(len(order), np.bool_)
    first[aimed[ranks(target[aimed]) == 0]] = True
    true = first & ~ignored
    false = ~true & ~ignored
    objects = np.bincount(flat.gt_labels[~flat.gt_ignore], minlength=len(flat.names))
    ends = np.searchsorted(labels, np.arange(len(flat.names) + 1))
    return [
        _average_precision(true[a:b], false[a:b], int(count), mode)
        for a, b, count in zip(ends[:-1], ends[1:], objects, strict=True)
    ]


def _average_precision(
    true: Bool[np.ndarray, "n"], false: Bool[np.ndarray, "n"], objects: int, mode: str
) -> float | None:
    if not objects:
        return None
    hits, misses = np.cumsum(true), np.cumsum(false)
    recall, precision = hits / objects, hits / np.maximum(hits + misses, 1)
    if mode == "11points":
        points = [k / 10 for k in range(11)]
        return float(sum(precision[recall >= point].max(initial=0.0) for point in points) / 11)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * best).sum())


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
