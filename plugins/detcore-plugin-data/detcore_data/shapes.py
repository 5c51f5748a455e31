"""A made-up dataset of coloured shapes, for trying things out without a download."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from PIL import Image, ImageDraw
from pydantic import Field

from detcore.component import Part, make, wired
from detcore.interfaces import Dataset, Example, Transform
from detcore_data.checks import Counts
from detcore_data.coco_file import read_coco
from detcore_data.images import ImageReader
from detcore_data.source import ExampleSource

SHAPES = ("circle", "square", "triangle")

#: Raised whenever the pictures change, so that old folders are not taken for new ones.
_VERSION = 1
_POINTS = {"circle": 40, "square": 4, "triangle": 3}

Polygon = np.ndarray


class ShapesDataset(Dataset):
    """Circles, squares and triangles of any colour and turn on noisy backgrounds, some partly over others.

    Made from ``seed`` alone, on the first use: images and a COCO file with boxes and polygons are written
    to a folder of their own below ``root``, and read like any COCO dataset from then on. Two machines make
    the same pictures.

    Args:
        root: Folder that they are written to, made where it does not exist; a data module supplies one to all
            its datasets. Must be given by one of the two.
        length: Number of images.
        size: (h, w) of the images, in pixels.
        seed: Seed; another one for every split.
        max_objects: Largest number of objects in an image.
        object_size: Smallest and largest diameter of an object, as fractions of the image's short edge.
        empty: Probability that an image has no object.
        classes: The shapes that are wanted, in the order of their labels; None for all. Others are drawn
            too, but are background.
        transforms: Applied to every example, in order.
        filter_empty: Whether images without objects are left out.
        with_masks: Whether examples have instance masks.

    Raises:
        DataError: A class is unknown.
    """

    def __init__(
        self,
        *,
        root: Path | None = wired(None, may_override=True),
        length: Annotated[int, Field(ge=1)] = 100,
        size: tuple[Annotated[int, Field(ge=16)], Annotated[int, Field(ge=16)]] = (128, 128),
        seed: Annotated[int, Field(ge=0, lt=2**32)] = 0,
        max_objects: Annotated[int, Field(ge=1)] = 5,
        object_size: tuple[float, float] = (0.12, 0.4),
        empty: Annotated[float, Field(ge=0, le=1)] = 0.1,
        classes: tuple[str, ...] | None = wired(None, may_override=True),
        transforms: tuple[Part[Transform], ...] = (),
        filter_empty: bool = False,
        with_masks: bool = False,
    ) -> None:
        if root is None:
            raise ValueError("needs a folder to write its pictures to: give root")
        if not 0 < object_size[0] <= object_size[1] <= 0.7:
            raise ValueError(f"object_size should be 0 < smallest <= largest <= 0.7, got {object_size}")
        self.transforms = tuple(make(transform) for transform in transforms)
        artist = _Artist(seed, size, max_objects, object_size, empty)
        folder = _prepared(root, artist, length)
        content = read_coco(folder / "instances.json", classes, with_masks)
        reader = ImageReader(folder / "images", size[0] * size[1], "ignore")
        counts = Counts(other_classes=content.other_classes)
        self._source = ExampleSource(content.records, reader, self.transforms, "error", filter_empty, counts)
        #: Where the pictures are.
        self.folder = folder
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


class _Artist:
    """Draws picture after picture. numpy's ``RandomState``, since its numbers are frozen for good.

    Args:
        seed: Seed.
        size: (h, w) in pixels.
        max_objects: Largest number of objects.
        object_size: Range of diameters, as fractions of the short edge.
        empty: Probability of no object.
    """

    def __init__(
        self,
        seed: int,
        size: tuple[int, int],
        max_objects: int,
        object_size: tuple[float, float],
        empty: float,
    ) -> None:
        self.random = np.random.RandomState(seed)
        self.size, self.max_objects, self.object_size, self.empty = size, max_objects, object_size, empty
        low, high = object_size
        self.name = (
            f"shapes{_VERSION}-seed{seed}-{size[0]}x{size[1]}-{max_objects}-{low:g}-{high:g}-{empty:g}"
        )

    def picture(self) -> tuple[Image.Image, list[tuple[int, Polygon]]]:
        """An image, and the shape and the outline [n, 2] of each object in it."""
        height, width = self.size
        noise = self.random.normal(
            self.random.uniform(60, 190, 3), self.random.uniform(5, 25), (height, width, 3)
        )
        image = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
        draw = ImageDraw.Draw(image)
        count = 0 if self.random.uniform() < self.empty else self.random.randint(1, self.max_objects + 1)
        objects: list[tuple[int, Polygon]] = []
        for _ in range(count):
            shape, polygon = self._object([polygon for _, polygon in objects])
            color = tuple(int(c) for c in self.random.randint(0, 256, 3))
            if polygon is not None:
                draw.polygon([(float(x), float(y)) for x, y in polygon], fill=color)
                objects.append((shape, polygon))
        return image, objects

    def _object(self, others: list[Polygon]) -> tuple[int, Polygon | None]:
        """A shape and its outline, where it hides no other by more than half; None if it finds no place."""
        shape = int(self.random.randint(len(SHAPES)))
        points = _POINTS[SHAPES[shape]]
        for _ in range(10):
            diameter = self.random.uniform(*self.object_size) * min(self.size)
            angles = 2 * math.pi * (np.arange(points) / points + self.random.uniform())
            center = self.random.uniform(diameter / 2, np.array(self.size[::-1]) - diameter / 2)
            polygon = (center + diameter / 2 * np.stack((np.cos(angles), np.sin(angles)), axis=1)).round(2)
            if all(_covered(_box(polygon), _box(other)) < 0.5 for other in others):
                return shape, polygon
        return shape, None


def _box(polygon: Polygon) -> tuple[float, float, float, float]:
    (x1, y1), (x2, y2) = polygon.min(0), polygon.max(0)
    return float(x1), float(y1), float(x2), float(y2)


def _covered(over: tuple[float, ...], under: tuple[float, ...]) -> float:
    """Overlap of two boxes as a fraction of the smaller one."""
    width = min(over[2], under[2]) - max(over[0], under[0])
    height = min(over[3], under[3]) - max(over[1], under[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (over, under)]
    return max(0.0, width) * max(0.0, height) / min(areas)


def _area(polygon: Polygon) -> float:
    x, y = polygon.T
    return float(abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2)


def _prepared(root: Path, artist: _Artist, length: int) -> Path:
    """The folder with the pictures; made elsewhere and renamed, so that it is either whole or not there."""
    folder = root / f"{artist.name}-{length}"
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=root))
    try:
        _write(work, artist, length)
        work.chmod(0o755)
        os.rename(work, folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _write(folder: Path, artist: _Artist, length: int) -> None:
    (folder / "images").mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, length + 1):
        image, objects = artist.picture()
        name = f"{number:06d}.png"
        image.save(folder / "images" / name)
        images.append({"id": number, "file_name": name, "height": image.height, "width": image.width})
        for shape, polygon in objects:
            x1, y1, x2, y2 = _box(polygon)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": shape + 1,
                    "bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
                    "area": round(_area(polygon), 2),
                    "iscrowd": 0,
                    "segmentation": [polygon.flatten().tolist()],
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(SHAPES, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content), encoding="utf-8")
