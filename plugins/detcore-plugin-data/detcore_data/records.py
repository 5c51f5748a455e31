"""The index of a split: every image and annotation in flat arrays, without opening an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detcore.structures import ClassMap
from detcore_data.segmentations import Segmentations


@dataclass(frozen=True)
class ImageRecord:
    """What is known of one image before it is opened.

    Args:
        file: Path below the image folder.
        image_id: The dataset's id.
        size: Annotated (h, w), or None where the annotations do not say.
        rows: The image's annotations, as a range of rows in the :class:`Records`.
    """

    file: str
    image_id: int
    size: tuple[int, int] | None
    rows: slice


@dataclass(frozen=True)
class Annotations:
    """A annotations of a split.

    Args:
        boxes: x, y, w, h in pixels of the files, in the precision of the file: evaluation compares with
            thresholds.
        areas: Areas that decide which objects count as small or large, in square pixels.
        labels: 0..K-1.
        ignore: Which are regions to ignore (crowd, difficult, DontCare).
        any_class: Which of these stand for objects of every class; their label says nothing.
        ids: Ids or positions in the annotation file, for messages.
        segments: Rows in the :class:`Segmentations`.
    """

    boxes: Float[Tensor, "A 4"]
    areas: Float[Tensor, "A"]
    labels: Int[Tensor, "A"]
    ignore: Bool[Tensor, "A"]
    any_class: Bool[Tensor, "A"]
    ids: Int[Tensor, "A"]
    segments: Int[Tensor, "A"]

    @classmethod
    def of(
        cls,
        boxes: np.ndarray,
        labels: np.ndarray,
        ignore: np.ndarray,
        *,
        areas: np.ndarray | None = None,
        any_class: np.ndarray | None = None,
        ids: np.ndarray | None = None,
    ) -> Self:
        """Annotations from columns; areas are those of the boxes where omitted, ids count from 0."""
        count = len(labels)
        boxes = np.asarray(boxes, dtype=np.float64).reshape(count, 4)
        return cls(
            boxes=torch.from_numpy(boxes),
            areas=torch.from_numpy(boxes[:, 2] * boxes[:, 3] if areas is None else areas.astype(np.float64)),
            labels=torch.from_numpy(np.asarray(labels, dtype=np.int64)),
            ignore=torch.from_numpy(np.asarray(ignore, dtype=np.bool_)),
            any_class=torch.from_numpy(np.zeros(count, np.bool_) if any_class is None else any_class),
            ids=torch.from_numpy(np.arange(count) if ids is None else np.asarray(ids, dtype=np.int64)),
            segments=torch.arange(count),
        )

    def __len__(self) -> int:
        """The number of annotations A."""
        return len(self.labels)

    def select(self, index: Tensor | slice) -> Self:
        """The annotations at ``index`` (positions, a mask, or a range)."""
        return type(self)(*(getattr(self, field.name)[index] for field in dataclasses.fields(self)))


@dataclass(frozen=True)
class Records:
    """All images of a split with their annotations, ordered by image.

    Args:
        class_map: Names and dataset ids of the classes.
        source: File or folder of the annotations, for messages.
        files: Paths below the image folder, as UTF-8 bytes: a list of strings would be copied by every
            worker.
        image_ids: The dataset's ids.
        sizes: Annotated (h, w), zeros where the annotations do not say.
        offsets: Image i has the annotations ``offsets[i]`` up to ``offsets[i + 1]``.
        annotations: The annotations.
        segmentations: Instance masks, where they were asked for.
    """

    class_map: ClassMap
    source: str
    files: np.ndarray
    image_ids: Int[Tensor, "I"]
    sizes: Int[Tensor, "I 2"]
    offsets: Int[Tensor, "I+1"]
    annotations: Annotations
    segmentations: Segmentations | None = None

    @classmethod
    def of(
        cls,
        class_map: ClassMap,
        source: str,
        files: Sequence[str],
        image_ids: Sequence[int] | np.ndarray,
        sizes: Sequence[tuple[int, int]] | np.ndarray,
        image_of: np.ndarray,
        annotations: Annotations,
        segmentations: Segmentations | None = None,
    ) -> Self:
        """Records from annotations in any order; those of an image keep theirs.

        Args:
            class_map: See the class.
            source: See the class.
            files: See the class.
            image_ids: See the class.
            sizes: See the class.
            image_of: Position of each annotation's image.
            annotations: The annotations.
            segmentations: See the class.
        """
        count = len(files)
        order = np.argsort(image_of, kind="stable")
        offsets = np.concatenate(([0], np.cumsum(np.bincount(image_of, minlength=count)[:count])))
        return cls(
            class_map=class_map,
            source=source,
            files=np.array([name.encode() for name in files], dtype=np.bytes_),
            image_ids=torch.from_numpy(np.array(image_ids, dtype=np.int64)),
            sizes=torch.from_numpy(np.array(sizes, dtype=np.int64).reshape(count, 2)),
            offsets=torch.from_numpy(offsets.astype(np.int64)),
            annotations=annotations.select(torch.from_numpy(order)),
            segmentations=segmentations,
        )

    def __len__(self) -> int:
        """The number of images I."""
        return len(self.image_ids)

    def __getitem__(self, index: int) -> ImageRecord:
        """What is known of one image."""
        height, width = self.sizes[index].tolist()
        first, last = self.offsets[index : index + 2].tolist()
        return ImageRecord(
            file=self.files[index].decode(),
            image_id=int(self.image_ids[index]),
            size=(height, width) if min(height, width) > 0 else None,
            rows=slice(first, last),
        )

    @property
    def image_of(self) -> Int[Tensor, "A"]:
        """Position of each annotation's image."""
        return torch.repeat_interleave(torch.arange(len(self)), self.offsets.diff())

    def keep_annotations(self, kept: Bool[Tensor, "A"]) -> Self:
        """The same images with some of their annotations."""
        counts = torch.bincount(self.image_of[kept], minlength=len(self))
        offsets = torch.cat((counts.new_zeros(1), counts.cumsum(0)))
        return dataclasses.replace(self, offsets=offsets, annotations=self.annotations.select(kept))

    def keep_images(self, kept: Bool[Tensor, "I"]) -> Self:
        """Some of the images with their annotations."""
        counts = self.offsets.diff()[kept]
        return dataclasses.replace(
            self,
            files=self.files[kept.numpy()],
            image_ids=self.image_ids[kept],
            sizes=self.sizes[kept],
            offsets=torch.cat((counts.new_zeros(1), counts.cumsum(0))),
            annotations=self.annotations.select(kept[self.image_of]),
        )


def clip_to_image(
    boxes: Float[Tensor, "*A 4"], sizes: Int[Tensor, "*A 2"]
) -> tuple[Float[Tensor, "*A 4"], Bool[Tensor, "*A"]]:
    """Boxes as a network sees them, and which of them have an extent inside the image.

    Args:
        boxes: x, y, w, h in float64.
        sizes: (h, w) per box.

    Returns:
        xyxy in float32, inside the image, and whether both sides are longer than 0.
    """
    limits = sizes.flip(-1).to(boxes.dtype)
    low = torch.minimum(boxes[..., :2].clamp(min=0), limits)
    high = torch.minimum((boxes[..., :2] + boxes[..., 2:]).clamp(min=0), limits)
    clipped = torch.cat((low, high), dim=-1).float()
    return clipped, (clipped[..., 2:] > clipped[..., :2]).all(-1) & (boxes[..., 2:] > 0).all(-1)
