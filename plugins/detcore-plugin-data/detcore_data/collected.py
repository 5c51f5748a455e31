"""Detections over a dataset, gathered image by image and checked against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detcore.errors import DataError
from detcore.interfaces import Dataset
from detcore.structures import ImageDetections
from detcore_data.ground_truth import records_of
from detcore_data.records import Records
from detcore_data.segmentations import run_lengths


@dataclass(frozen=True)
class Found:
    """The detections of one image as they are kept: on the CPU, masks as run lengths.

    Args:
        boxes: xyxy in pixels of the file.
        scores: In any order.
        labels: 0..K-1.
        runs: COCO's run lengths of the masks; None where masks were not asked for.
    """

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, "n"]
    labels: Int[Tensor, "n"]
    runs: tuple[dict[str, Any], ...] | None = None

    def __len__(self) -> int:
        """The number of detections."""
        return len(self.scores)


class Collected:
    """The detections of a dataset's images. Metrics hold one.

    Args:
        dataset: The dataset; its ground truth becomes ``records``.
        masks: Whether masks are needed; they are dropped where not.

    Raises:
        DataError: Two images have one id.
    """

    def __init__(self, dataset: Dataset, *, masks: bool = False) -> None:
        self.records: Records = records_of(dataset)
        self.masks = masks
        #: Detections by image id.
        self.found: dict[int, Found] = {}
        ids = self.records.image_ids.tolist()
        self._known = frozenset(ids)
        if len(self._known) < len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            raise DataError(f"{self.records.source}: two images have the id {twice}")

    @property
    def unseen(self) -> int:
        """Number of images that nothing was added for."""
        return len(self.records) - len(self.found)

    def add(self, image_ids: Sequence[int], detections: Sequence[ImageDetections]) -> None:
        """Adds the detections of some images. An image that comes again replaces what it had.

        Args:
            image_ids: The dataset's ids.
            detections: In the pixels of the files.

        Raises:
            DataError: An id is not one of the dataset's, or a detection has a label beyond the classes, a
                score or coordinate that is no finite number, or no mask where masks are needed.
        """
        if len(image_ids) != len(detections):
            raise DataError(f"update got {len(image_ids)} image ids but {len(detections)} detections")
        for image_id, found in zip(image_ids, detections, strict=True):
            if int(image_id) not in self._known:
                raise DataError(
                    f"detections for the image id {image_id!r}, which {self.records.source} does not have; its "
                    f"{len(self._known)} ids begin with {sorted(self._known)[:3]}: is it the right dataset?"
                )
            found = found.to("cpu")
            self._check(f"detections of image {int(image_id)}", found)
            runs = tuple(run_lengths(found.masks)) if self.masks and found.masks is not None else None
            self.found[int(image_id)] = Found(found.boxes, found.scores, found.labels, runs)

    def seen_records(self) -> Records:
        """The ground truth of the images that something was added for."""
        seen = torch.tensor(list(self.found), dtype=torch.int64)
        return self.records.keep_images(torch.isin(self.records.image_ids, seen))

    def _check(self, where: str, found: ImageDetections) -> None:
        classes, labels = len(self.records.class_map), found.labels
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise DataError(f"{where}: labels should be 0..{classes - 1}, got {sorted(set(labels.tolist()))}")
        for name, values in (("boxes", found.boxes), ("scores", found.scores)):
            if not values.isfinite().all():
                raise DataError(f"{where}: {name} that are no finite numbers")
        if self.masks and found.masks is None:
            raise DataError(f"{where}: iou_types has 'segm' but the detections no masks")
