"""Pascal VOC: one XML file per image."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from detcore.component import Part, make, wired
from detcore.errors import DataError
from detcore.interfaces import Dataset, Example, Transform
from detcore_data.checks import Counts, Policy
from detcore_data.classes import choose_classes
from detcore_data.files import pair_files
from detcore_data.images import Exif, ImageReader, MaxPixels, below
from detcore_data.records import Annotations, Records
from detcore_data.source import ExampleSource


class VocDataset(Dataset):
    """Images annotated in the format of Pascal VOC (Everingham et al., IJCV 2010).

    An image belongs to the annotation file of its own name; the ``filename`` that the XML states is not
    used, since it is often out of date.

    Args:
        root: Folder that the other paths are relative to; a data module supplies one to all its datasets.
        annotations: Folder of the XML files.
        images: Folder of the images.
        split: File that lists the images of the split, one name per line, with or without ending; None for
            all.
        classes: The classes that are wanted, in the order of their labels. None takes all names in the folder
            ``annotations``, sorted: the same ones for every split.
        difficult: What to do with objects marked as difficult: ``ignore`` makes them regions to ignore,
            ``keep`` treats them like others, ``drop`` leaves them out.
        origin: Coordinate of the first pixel. With 1, as in the original VOC files, where a box also
            includes its last pixel, 1 is subtracted from ``xmin`` and ``ymin``; with 0 coordinates are
            taken as they stand.
        transforms: Applied to every example, in order.
        filter_empty: Whether images without objects are left out; kept, they are all background.
        policy: What to do with boxes that reach out of their image by more than a pixel: cut them off
            (``clip``), leave them out (``drop``) or raise (``error``). Boxes without an extent inside their
            image are left out, and raise with ``error``. Both are counted in ``counts`` and logged once.
        exif: What to do with the orientation that a camera noted in a file; ``auto`` does what the
            annotated size asks for.
        max_pixels: Largest height * width that is decoded, in pixels.

    Raises:
        DataError: A folder, a listed file or an image is missing, an XML file is damaged or incomplete, or
            a class is unknown; names the file, the object and the element.
    """

    def __init__(
        self,
        *,
        root: Path | None = wired(None, may_override=True),
        annotations: Path,
        images: Path,
        split: Path | None = None,
        classes: tuple[str, ...] | None = wired(None, may_override=True),
        difficult: Literal["ignore", "keep", "drop"] = "ignore",
        origin: Literal[0, 1] = 0,
        transforms: tuple[Part[Transform], ...] = (),
        filter_empty: bool = False,
        policy: Policy = "clip",
        exif: Exif = "auto",
        max_pixels: MaxPixels = 100_000_000,
    ) -> None:
        self.transforms = tuple(make(transform) for transform in transforms)
        annotations, images = below(root, annotations), below(root, images)
        split = below(root, split) if split is not None else None
        pairs = pair_files(annotations, images, ".xml", split)
        files = [_read(path, origin) for path, _ in pairs]
        read = {path: file for (path, _), file in zip(pairs, files, strict=True)}
        names = _names(annotations, read, classes)
        records, other = _records(annotations, names, classes, [name for _, name in pairs], files, difficult)
        reader = ImageReader(images, max_pixels, exif)
        counts = Counts(other_classes=other)
        self._source = ExampleSource(records, reader, self.transforms, policy, filter_empty, counts)
        #: What the files have, without the images; evaluation reads its ground truth here.
        self.records = self._source.records
        #: What was left out or found odd.
        self.counts = self._source.counts
        self.class_map = self.records.class_map

    def __len__(self) -> int:
        """Number of images."""
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        """See :class:`~detcore.interfaces.Dataset`."""
        return self._source[index]


@dataclass(frozen=True)
class _VocFile:
    """One XML file: (h, w), zeros where it has none, and per object its name, x, y, w, h and difficulty."""

    size: tuple[int, int]
    names: tuple[str, ...]
    boxes: tuple[tuple[float, float, float, float], ...]
    difficult: tuple[bool, ...]


def _read(path: Path, origin: int) -> _VocFile:
    try:
        root = ElementTree.parse(path, ElementTree.XMLParser(target=_NoDoctype())).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as cause:  # LookupError: an unknown encoding
        raise DataError(f"{path}: not an XML file of annotations ({cause})") from cause
    objects = root.findall("object")
    boxes = []
    for i, item in enumerate(objects):
        where = f"{path}: object {i}"
        x1, y1, x2, y2 = (_number(item, f"bndbox/{key}", where) for key in ("xmin", "ymin", "xmax", "ymax"))
        x1, y1 = x1 - origin, y1 - origin
        boxes.append((x1, y1, x2 - x1, y2 - y1))
    height, width = (
        int(_number(root, f"size/{key}", str(path))) if root.findtext(f"size/{key}") else 0
        for key in ("height", "width")
    )
    if not 0 <= min(height, width) <= max(height, width) < 2**31:
        raise DataError(f"{path}: an image of {width} x {height} pixels (w x h)")
    return _VocFile(
        size=(height, width),
        names=tuple(_text(item, "name", f"{path}: object {i}") for i, item in enumerate(objects)),
        boxes=tuple(boxes),
        difficult=tuple((item.findtext("difficult") or "0").strip() not in ("0", "") for item in objects),
    )


class _NoDoctype(ElementTree.TreeBuilder):
    """Builds the tree of a file without a document type.

    Annotations need none, and with it a few lines could declare entities that stand for gigabytes.
    """

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Called where the declaration begins.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"it declares a document type, {name!r}; take the DOCTYPE out")


def _text(item: ElementTree.Element, key: str, where: str) -> str:
    text = item.findtext(key)
    if text is None or not text.strip():
        raise DataError(f"{where} lacks <{key}>")
    return text.strip()


def _number(item: ElementTree.Element, key: str, where: str) -> float:
    text = _text(item, key, where)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}: <{key}> should be a number, got {text[:50]!r}")
    return number


def _names(annotations: Path, read: dict[Path, _VocFile], wanted: tuple[str, ...] | None) -> list[str]:
    """The class names in the folder, not only in the split, so that labels do not depend on it."""
    names = {name for file in read.values() for name in file.names}
    if wanted is None or not names.issuperset(wanted):  # else the other files can add nothing
        for path in annotations.glob("*.xml"):
            if path not in read:
                names.update(_read(path, 0).names)
    return sorted(names)


def _records(
    source: Path,
    names: list[str],
    classes: tuple[str, ...] | None,
    images: list[str],
    files: list[_VocFile],
    difficult: str,
) -> tuple[Records, int]:
    class_map = choose_classes(str(source), names, None, classes, declared=False)
    label_of = {name: label for label, name in enumerate(class_map.names)}
    rows = [
        (i, label_of[name], box, hard)
        for i, file in enumerate(files)
        for name, box, hard in zip(file.names, file.boxes, file.difficult, strict=True)
        if name in label_of and not (hard and difficult == "drop")
    ]
    asked = sum(name in label_of for file in files for name in file.names)
    annotations = Annotations.of(
        boxes=np.array([row[2] for row in rows]),
        labels=np.array([row[1] for row in rows]),
        ignore=np.array([row[3] and difficult == "ignore" for row in rows]),
    )
    image_of = np.array([row[0] for row in rows], dtype=np.int64)
    sizes = [file.size for file in files]
    records = Records.of(class_map, str(source), images, range(len(images)), sizes, image_of, annotations)
    return records, sum(len(file.names) for file in files) - asked
