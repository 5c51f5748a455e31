"""The programs that compute COCO's numbers, behind one function."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from pycocotools import mask as coco_mask

from detcore_data.coco_columns import detected_of, truth_of
from detcore_data.coco_matching import THRESHOLDS, curves
from detcore_data.collected import Found
from detcore_data.records import Records
from detcore_data.segmentations import quietly

Backend: TypeAlias = Literal["numpy", "pycocotools", "faster_coco_eval"]
Size: TypeAlias = Literal["all", "small", "medium", "large"]

_SIZES = ("all", "small", "medium", "large")


@dataclass(frozen=True)
class Evaluation:
    """Precision and recall by IoU threshold T, recall R, class K, size A and number of detections M.

    Args:
        precisions: For the last number of detections [T, R, K, A]; below 0 where there is no ground truth.
        recalls: [T, K, A, M]; likewise.
        thresholds: The IoUs [T].
        max_dets: The numbers of detections [M].
    """

    precisions: np.ndarray
    recalls: np.ndarray
    thresholds: np.ndarray
    max_dets: tuple[int, ...]

    def precision(
        self, *, label: int | None = None, iou: float | None = None, size: Size = "all"
    ) -> float | None:
        """Average precision; None where there is no ground truth.

        Args:
            label: One class; the mean over those that have ground truth where None.
            iou: One of the thresholds; the mean over all where None.
            size: Which objects count, by their area.
        """
        return _mean(self._select(self.precisions, label, iou, 2)[..., _SIZES.index(size)])

    def recall(
        self, *, label: int | None = None, size: Size = "all", count: int | None = None
    ) -> float | None:
        """Average recall, the mean over all thresholds; None where there is no ground truth.

        Args:
            label: One class; the mean over those that have ground truth where None.
            size: Which objects count, by their area.
            count: One of the numbers of detections; the last where None.
        """
        position = -1 if count is None else self.max_dets.index(count)
        return _mean(self._select(self.recalls, label, None, 1)[..., _SIZES.index(size), position])

    def _select(
        self, values: np.ndarray, label: int | None, iou: float | None, class_axis: int
    ) -> np.ndarray:
        if iou is not None:
            values = values[np.isclose(self.thresholds, iou)]
        return values if label is None else values.take([label], axis=class_axis)


def _mean(values: np.ndarray) -> float | None:
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else None


def check_backend(backend: Backend) -> None:
    """Checks that a backend is installed.

    Raises:
        ValueError: It is not; names the package.
    """
    if backend == "faster_coco_eval" and importlib.util.find_spec(backend) is None:
        raise ValueError(
            f"backend={backend!r} needs the package faster-coco-eval: "
            "pip install \"detcore-plugin-data[fast]\", or choose backend='numpy', which gives the same numbers"
        )


def evaluate(
    records: Records,
    found: Mapping[int, Found],
    iou_type: str,
    max_dets: Sequence[int],
    backend: Backend,
    class_agnostic: bool = False,
) -> Evaluation:
    """Compares detections with ground truth.

    Args:
        records: The ground truth.
        found: Detections by image id, in the pixels of the files.
        iou_type: ``bbox`` or ``segm``.
        max_dets: Numbers of detections per image and class, rising.
        backend: Which program does it.
        class_agnostic: Whether all are of one class.
    """
    masks = iou_type == "segm"
    if backend == "numpy":
        truth = truth_of(records, masks, class_agnostic)
        detected = detected_of(records, found, masks, class_agnostic, max_dets[-1])
        classes = 1 if class_agnostic else len(records.class_map)
        precisions, recalls = curves(truth, detected, len(records), classes, max_dets)
        return Evaluation(precisions, recalls, THRESHOLDS, tuple(max_dets))
    run = _pycocotools if backend == "pycocotools" else _faster_coco_eval
    result = run(*_as_coco(records, found, iou_type, class_agnostic), iou_type, list(max_dets))
    return Evaluation(
        np.asarray(result.eval["precision"])[..., -1],
        np.asarray(result.eval["recall"]),
        np.asarray(result.params.iouThrs),
        tuple(max_dets),
    )


def _as_coco(
    records: Records, found: Mapping[int, Found], iou_type: str, class_agnostic: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ground truth and detections as COCO's files have them."""
    ids = records.image_ids.tolist()
    images = [
        {"id": i, "height": h, "width": w} for i, (h, w) in zip(ids, records.sizes.tolist(), strict=True)
    ]
    names = ("object",) if class_agnostic else records.class_map.names
    categories = [{"id": label, "name": name} for label, name in enumerate(names)]
    shared = {"images": images, "categories": categories}
    truth = {**shared, "annotations": _truth(records, iou_type, class_agnostic)}
    return truth, {**shared, "annotations": _detections(found, set(ids), iou_type, class_agnostic)}


def _pycocotools(
    truth: dict[str, Any], detections: dict[str, Any], iou_type: str, max_dets: list[int]
) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():  # it prints its progress
        warnings.simplefilter("ignore", DeprecationWarning)
        sides = []
        for data in (truth, detections):
            side = COCO()
            side.dataset = data
            side.createIndex()
            sides.append(side)
        evaluation = COCOeval(*sides, iou_type)
        evaluation.params.maxDets = max_dets
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _faster_coco_eval(
    truth: dict[str, Any], detections: dict[str, Any], iou_type: str, max_dets: list[int]
) -> Any:
    from faster_coco_eval import COCO, COCOeval_faster

    evaluation = COCOeval_faster(COCO(truth), COCO(detections), iou_type)
    evaluation.params.maxDets = max_dets
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def _truth(records: Records, iou_type: str, class_agnostic: bool) -> list[dict[str, Any]]:
    """COCO's annotations, numbered from 1 (0 means unmatched to pycocotools)."""
    every = range(len(records.class_map))
    annotations = records.annotations
    image_ids = records.image_ids[records.image_of].tolist()
    sizes = records.sizes[records.image_of].tolist()
    columns = (
        annotations.boxes,
        annotations.areas,
        annotations.labels,
        annotations.ignore,
        annotations.any_class,
    )
    rows: list[dict[str, Any]] = []
    for i, (box, area, label, ignore, any_class) in enumerate(
        zip(*(c.tolist() for c in columns), strict=True)
    ):
        row: dict[str, Any] = {"image_id": image_ids[i], "bbox": box, "area": area, "iscrowd": int(ignore)}
        if iou_type == "segm" and records.segmentations is not None:
            row["segmentation"] = records.segmentations.encode(int(annotations.segments[i]), tuple(sizes[i]))
        for category in (0,) if class_agnostic else every if any_class else (label,):
            rows.append({**row, "category_id": category, "id": len(rows) + 1})
    return rows


def _detections(
    found: Mapping[int, Found], known: set[int], iou_type: str, class_agnostic: bool
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for image_id, item in found.items():
        if image_id not in known:
            continue
        low = item.boxes[:, :2].double()  # subtracted in float64, as one would after writing them to a file
        boxes = torch.cat((low, item.boxes[:, 2:].double() - low), dim=1).tolist()
        masks: Sequence[dict[str, Any] | None] = [None] * len(item)
        if iou_type == "segm" and item.runs is not None:
            masks = item.runs
        for box, score, label, mask in zip(
            boxes, item.scores.tolist(), item.labels.tolist(), masks, strict=True
        ):
            category = 0 if class_agnostic else label
            row = {"image_id": image_id, "category_id": category, "bbox": box, "score": score, "iscrowd": 0}
            row |= (
                {"area": box[2] * box[3]}
                if mask is None
                else {"segmentation": mask, "area": float(quietly(coco_mask.area, mask))}
            )
            rows.append({**row, "id": len(rows) + 1})
    return rows
