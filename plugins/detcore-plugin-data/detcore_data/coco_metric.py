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
from detcore_data.ground_truth import records_of
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
        backend: ``pycocotools`` is the reference; ``faster_coco_eval`` computes the same in less time, and
            needs the package of that name.
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
        backend: Backend = "pycocotools",
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
        self._records: Records | None = None
        self._known: frozenset[int] = frozenset()
        self._found: dict[int, ImageDetections] = {}

    def start(self, dataset: Dataset) -> None:
        """See :class:`~detcore.interfaces.Metric`.

        Raises:
            DataError: Masks are to be compared but the dataset has none, or two images have one id.
        """
        records = records_of(dataset)
        ids = records.image_ids.tolist()
        self._known = frozenset(ids)
        if len(self._known) < len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            raise DataError(f"{records.source}: two images have the id {twice}")
        if "segm" in self.iou_types and records.segmentations is None:
            raise DataError(
                f"{records.source}: iou_types has 'segm' but the dataset no masks; use with_masks=True"
            )
        if "segm" in self.iou_types and not (records.sizes > 0).all():
            raise DataError(f"{records.source}: comparing masks needs the height and width of every image")
        self._records, self._found = records, {}

    def update(self, image_ids: Sequence[int], detections: Sequence[ImageDetections]) -> None:
        """See :class:`~detcore.interfaces.Metric`. An image that comes again replaces what it had.

        Raises:
            DataError: The metric was not started, an id is not one of the dataset's, or a detection has a
                label beyond the classes, or a score or coordinate that is no finite number.
        """
        records = self._started()
        if len(image_ids) != len(detections):
            raise DataError(f"update got {len(image_ids)} image ids but {len(detections)} detections")
        for image_id, found in zip(image_ids, detections, strict=True):
            if int(image_id) not in self._known:
                raise DataError(
                    f"detections for the image id {image_id!r}, which {records.source} does not have; its "
                    f"{len(self._known)} ids begin with {sorted(self._known)[:3]}: is it the right dataset?"
                )
            found = found.to("cpu")
            self._check(int(image_id), found, len(records.class_map))
            self._found[int(image_id)] = found

    def compute(self) -> dict[str, float | None]:
        """See :class:`~detcore.interfaces.Metric`."""
        numbers: dict[str, float | None] = {}
        for iou_type, evaluation in self._evaluate().items():
            prefix = "" if iou_type == "bbox" else f"{iou_type}_"
            found = _summary(evaluation)
            if self.classwise:
                names = self._started().class_map.names
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
        names = self._started().class_map.names
        return {name: _summary(evaluation, label) for label, name in enumerate(names)}

    def _evaluate(self) -> dict[str, Evaluation]:
        records, found = self._started(), self._found
        unseen = len(records) - len(found)
        if unseen:
            done = "their objects count as missed" if self.unseen == "miss" else "they are left out"
            logger.warning(
                "%s: %d of %d images were not evaluated; %s", records.source, unseen, len(records), done
            )
        if unseen and self.unseen == "skip":
            records = records.keep_images(torch.isin(records.image_ids, torch.tensor(list(found))))
        return {
            iou_type: evaluate(records, found, iou_type, self.max_dets, self.backend, self.class_agnostic)
            for iou_type in self.iou_types
        }

    def _started(self) -> Records:
        if self._records is None:
            raise DataError("the metric has no ground truth; call start(dataset) first")
        return self._records

    def _check(self, image_id: int, found: ImageDetections, classes: int) -> None:
        where = f"detections of image {image_id}"
        if len(found.labels) and not 0 <= int(found.labels.min()) <= int(found.labels.max()) < classes:
            raise DataError(
                f"{where}: labels should be 0..{classes - 1}, got {sorted(set(found.labels.tolist()))}"
            )
        for name, values in (("boxes", found.boxes), ("scores", found.scores)):
            if not values.isfinite().all():
                raise DataError(f"{where}: {name} that are no finite numbers")
        if "segm" in self.iou_types and found.masks is None:
            raise DataError(f"{where}: iou_types has 'segm' but the detections no masks")


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
