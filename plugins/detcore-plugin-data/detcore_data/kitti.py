"""KITTI: one text file per image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from detcore.component import Part, make, wired
from detcore.errors import DataError, did_you_mean
from detcore.interfaces import Dataset, Example, Transform
from detcore.structures import ClassMap
from detcore_data.checks import Counts, Policy
from detcore_data.classes import choose_classes
from detcore_data.files import pair_files
from detcore_data.images import Exif, ImageReader, MaxPixels, below
from detcore_data.records import Annotations, Records
from detcore_data.source import ExampleSource

#: The benchmark's own classes, in the order of its documentation.
KITTI_CLASSES = ("Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc")


@dataclass(frozen=True)
class KittiObjects:
    """Every object in the label files, before any choice of classes; what the benchmark's evaluation needs.

    Args:
        image_ids: Ids of the images that the objects are in.
        names: Classes as the files have them, ``DontCare`` included.
        boxes: xyxy in pixels.
        truncation: Part of the object that is out of the image, 0..1; -1 where it is not known.
        occlusion: 0 fully visible, 1 partly, 2 largely occluded, 3 unknown; -1 where it does not apply.
    """

    image_ids: Int[Tensor, "A"]
    names: tuple[str, ...]
    boxes: Float[Tensor, "A 4"]
    truncation: Float[Tensor, "A"]
    occlusion: Int[Tensor, "A"]


class _Object(NamedTuple):
    """A line: its class, x1, y1, x2, y2, truncation and occlusion."""

    name: str
    corners: tuple[float, float, float, float]
    truncation: float
    occlusion: int

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x, y, w, h."""
        x1, y1, x2, y2 = self.corners
        return x1, y1, x2 - x1, y2 - y1


class KittiDataset(Dataset):
    """Images annotated in the format of KITTI's object benchmark (Geiger et al., CVPR 2012); the 2D boxes.

    Args:
        root: Folder that the other paths are relative to; a data module supplies one to all its datasets.
        annotations: Folder of the text files (``label_2``).
        images: Folder of the images (``image_2``).
        split: File that lists the images of the split, one name per line, with or without ending; None for
            all.
        classes: The classes that are wanted, in the order of their labels; None for the benchmark's eight.
            Annotations of others are left out, and counted.
        ignored: Names whose boxes become regions to ignore, for every class: the benchmark's ``DontCare``,
            and neighbours such as ``Van`` where cars are looked for.
        merge: Names that stand for another, such as ``{"Van": "Car"}``.
        transforms: Applied to every example, in order.
        filter_empty: Whether images without objects are left out; kept, they are all background.
        policy: What to do with boxes without an extent in their image: leave them out and log it (``clip``,
            ``drop``), or raise (``error``). The files do not state image sizes, so a box that reaches out
            of its image is cut off when it is read.
        exif: What to do with the orientation that a camera noted in a file.
        max_pixels: Largest height * width that is decoded, in pixels.

    Raises:
        DataError: A folder, a listed file or an image is missing, a line is incomplete, or a class is
            unknown; names the file, the line and the value.
    """

    def __init__(
        self,
        *,
        root: Path | None = wired(None, may_override=True),
        annotations: Path,
        images: Path,
        split: Path | None = None,
        classes: tuple[str, ...] | None = wired(None, may_override=True),
        ignored: tuple[str, ...] = ("DontCare",),
        merge: Mapping[str, str] | None = None,
        transforms: tuple[Part[Transform], ...] = (),
        filter_empty: bool = False,
        policy: Policy = "clip",
        exif: Exif = "auto",
        max_pixels: MaxPixels = 100_000_000,
    ) -> None:
        both = sorted(set(ignored) & set(classes or ()))
        if both:
            raise ValueError(f"ignored and classes both name {both}; a box is either an object or ignored")
        self.transforms = tuple(make(transform) for transform in transforms)
        annotations, images = below(root, annotations), below(root, images)
        split = below(root, split) if split is not None else None
        pairs = pair_files(annotations, images, ".txt", split)
        objects = [_read(path) for path, _ in pairs]
        _check_names(annotations, objects, {"ignored": ignored, "merge": tuple(merge or ())})
        #: What the label files have, whatever ``classes``, ``ignored`` and ``merge`` say.
        self.objects = _every(objects)
        objects = [[o._replace(name=(merge or {}).get(o.name, o.name)) for o in image] for image in objects]
        class_map = _classes(annotations, objects, classes, ignored)
        records, other = _records(class_map, str(annotations), [name for _, name in pairs], objects, ignored)
        reader = ImageReader(images, max_pixels, exif)
        counts = Counts(other_classes=other)
        self._source = ExampleSource(records, reader, self.transforms, policy, filter_empty, counts)
        #: What the files have, without the images; evaluation reads its ground truth here.
        self.records = self._source.records
        #: What was left out or found odd.
        self.counts = self._source.counts
        self.class_map = class_map

    def __len__(self) -> int:
        """Number of images."""
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        """See :class:`~detcore.interfaces.Dataset`."""
        return self._source[index]


def _read(path: Path) -> list[_Object]:
    """The objects of one file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as cause:
        raise DataError(f"{path}: not a text file ({cause})") from cause
    objects: list[_Object] = []
    for i, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) not in (15, 16):
            raise DataError(
                f"{path}, line {i}: a line should have 15 fields (16 with a score), got {len(fields)}"
            )
        try:
            x1, y1, x2, y2 = box = tuple(map(float, fields[4:8]))
            if not all(map(math.isfinite, box)):
                raise ValueError
        except ValueError:
            raise DataError(f"{path}, line {i}: fields 5 to 8 should be numbers, got {fields[4:8]}") from None
        try:
            truncation, occlusion = float(fields[1]), int(float(fields[2]))
        except (ValueError, OverflowError):
            raise DataError(
                f"{path}, line {i}: fields 2 and 3 (truncation, occlusion) should be numbers, got {fields[1:3]}"
            ) from None
        objects.append(_Object(fields[0], (x1, y1, x2, y2), truncation, occlusion))
    return objects


def _every(images: Sequence[Sequence[_Object]]) -> KittiObjects:
    every = [item for image in images for item in image]
    counts = [len(image) for image in images]
    return KittiObjects(
        image_ids=torch.repeat_interleave(torch.arange(len(images)), torch.tensor(counts, dtype=torch.int64)),
        names=tuple(item.name for item in every),
        boxes=torch.tensor([item.corners for item in every], dtype=torch.float64).reshape(-1, 4),
        truncation=torch.tensor([item.truncation for item in every], dtype=torch.float64),
        occlusion=torch.tensor([item.occlusion for item in every], dtype=torch.int64),
    )


def _check_names(
    source: Path, objects: Sequence[Sequence[_Object]], given: Mapping[str, tuple[str, ...]]
) -> None:
    known = {*KITTI_CLASSES, "DontCare", *(item.name for image in objects for item in image)}
    for parameter, names in given.items():
        for name in names:
            if name not in known:
                near = did_you_mean(name, known)
                raise DataError(f"{parameter}: {source} has no class {name!r}; {near or sorted(known)}")


def _classes(
    source: Path,
    objects: Sequence[Sequence[_Object]],
    wanted: tuple[str, ...] | None,
    ignored: tuple[str, ...],
) -> ClassMap:
    found = {item.name for image in objects for item in image} - set(ignored)
    strange = sorted(found - set(KITTI_CLASSES) - {"DontCare"})
    if wanted is None and strange:
        near = did_you_mean(strange[0], KITTI_CLASSES)
        raise DataError(
            f"classes: {source} has classes that the benchmark does not know: {strange}; {near} "
            "Name the classes that you want, in the order of their labels"
        )
    names = [*(name for name in KITTI_CLASSES if name not in ignored), *strange]
    return choose_classes(str(source), names, None, wanted)


def _records(
    class_map: ClassMap,
    source: str,
    images: list[str],
    objects: Sequence[Sequence[_Object]],
    ignored: tuple[str, ...],
) -> tuple[Records, int]:
    label_of = {name: label for label, name in enumerate(class_map.names)}
    rows = [
        (i, label_of.get(item.name, 0), item.box, item.name in ignored)
        for i, image in enumerate(objects)
        for item in image
        if item.name in label_of or item.name in ignored
    ]
    regions = np.array([row[3] for row in rows], dtype=np.bool_)
    annotations = Annotations.of(
        boxes=np.array([row[2] for row in rows]),
        labels=np.array([row[1] for row in rows]),
        ignore=regions,
        any_class=regions,
    )
    image_of = np.array([row[0] for row in rows], dtype=np.int64)
    sizes = [(0, 0)] * len(images)
    records = Records.of(class_map, source, images, range(len(images)), sizes, image_of, annotations)
    return records, sum(map(len, objects)) - len(rows)
