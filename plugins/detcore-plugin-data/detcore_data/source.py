"""What every dataset of this package has in common: from records to examples."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torchvision import tv_tensors

from detcore.errors import DataError
from detcore.interfaces import Example, Transform
from detcore.structures import ImageGeometry
from detcore_data.checks import Counts, Policy, apply_policy, format_hint, report
from detcore_data.images import ImageReader
from detcore_data.mixing import apply_transforms
from detcore_data.records import ImageRecord, Records, clip_to_image

logger = logging.getLogger(__name__)


class ExampleSource:
    """Reads the examples of a split; datasets hold one.

    Args:
        records: All that the annotation files have.
        reader: Reads the images.
        transforms: Applied to every example, in order.
        policy: What to do with boxes that are degenerate or reach out of their image.
        filter_empty: Whether images without objects are left out.
        counts: What was left out before.

    Raises:
        DataError: No image is left; none of the first images exists; or ``policy`` is ``error`` and a box
            is bad.
    """

    def __init__(
        self,
        records: Records,
        reader: ImageReader,
        transforms: Sequence[Transform],
        policy: Policy,
        filter_empty: bool,
        counts: Counts,
    ) -> None:
        if policy == "error" and counts.dangling:
            found = f"{counts.dangling} annotations of images that are not listed"
            raise DataError(f"{records.source}: {found}; correct the file, or choose policy='clip' or 'drop'")
        every = records
        records, degenerate, outside = apply_policy(every, policy)
        occupied = torch.bincount(records.image_of[~records.annotations.ignore], minlength=len(records)) > 0
        empty = int((~occupied).sum())
        if filter_empty and empty:
            records = records.keep_images(occupied)
        self.records, self.reader, self.transforms, self.policy = records, reader, tuple(transforms), policy
        #: What the files have, before the policy; the same object where nothing was left out.
        self.every = every
        self.counts = Counts(degenerate, outside, counts.dangling, counts.other_classes, empty)
        if not len(records):
            left_out = f", after filter_empty left out {empty} without objects" if filter_empty else ""
            raise DataError(f"{records.source}: there is no image{left_out}")
        self._check_folder()
        report(records.source, self.counts, policy, format_hint(every, outside))

    def __len__(self) -> int:
        """Number of images."""
        return len(self.records)

    def __getitem__(self, index: int) -> Example:
        """One image with its ground truth, transformed.

        Raises:
            DataError: The image is missing, cannot be decoded or is not of the annotated size.
        """
        return apply_transforms(self._read, range(len(self))[index], len(self), self.transforms)

    def _read(self, index: int) -> Example:
        record = self.records[index]
        return self._example(record, tv_tensors.Image(self.reader(record.file, record.size)))

    def _example(self, record: ImageRecord, image: tv_tensors.Image) -> Example:
        size = (int(image.shape[-2]), int(image.shape[-1]))
        annotations = self.records.annotations.select(record.rows)
        boxes, has_extent = clip_to_image(annotations.boxes, torch.tensor(size).expand(len(annotations), 2))
        path = str(self.reader.path(record.file))
        if record.size is None and not has_extent.all():  # else it was checked when the annotations were read
            self._complain(path, int((~has_extent).sum()))
            annotations, boxes = annotations.select(has_extent), boxes[has_extent]
        example = Example(
            image=image,
            boxes=tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
            labels=annotations.labels.clone(),
            ignore=annotations.ignore.clone(),
            image_id=record.image_id,
            file=path,
            geometry=ImageGeometry(size),
        )
        if self.records.segmentations is not None:
            masks = self.records.segmentations.decode(annotations.segments.tolist(), size, path)
            example["masks"] = tv_tensors.Mask(masks)
        return example

    def _complain(self, path: str, count: int) -> None:
        found = f"{path}: {count} boxes without extent inside the image"
        if self.policy == "error":
            raise DataError(f"{found}; correct {self.records.source}, or choose policy='clip' or 'drop'")
        logger.warning("%s (left out)", found)

    def _check_folder(self, tried: int = 8) -> None:
        """A wrong image folder is seen now, at the price of a few look-ups, and not in the first epoch."""
        first = [self.reader.path(self.records[i].file) for i in range(min(tried, len(self)))]
        if not any(path.is_file() for path in first):
            raise DataError(
                f"images: none of the first {len(first)} images of {self.records.source} is in "
                f"{self.reader.root}, e.g. {Path(self.records[0].file)}; is it the right folder?"
            )
