from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from detcore.interfaces import Dataset, Example
from detcore.structures import ClassMap, ImageGeometry


def _example(
    height: int = 6, width: int = 8, boxes: tuple[tuple[float, ...], ...] = ((1, 1, 4, 5),), image_id: int = 7
) -> Example:
    n = len(boxes)
    pixels = torch.arange(3 * height * width, dtype=torch.int64).reshape(3, height, width).to(torch.uint8)
    return Example(
        image=tv_tensors.Image(pixels),
        boxes=tv_tensors.BoundingBoxes(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            format="XYXY",
            canvas_size=(height, width),
        ),
        labels=torch.arange(n),
        ignore=torch.zeros(n, dtype=torch.bool),
        image_id=image_id,
        file=f"{image_id}.png",
        geometry=ImageGeometry((height, width)),
    )


@pytest.fixture
def example() -> Callable[..., Example]:
    return _example


@pytest.fixture
def masked_example() -> Callable[..., Example]:
    def make(height: int, width: int, boxes: tuple[tuple[int, ...], ...]) -> Example:
        item = _example(height, width, boxes)
        masks = torch.zeros(len(boxes), height, width, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
            mask[y1:y2, x1:x2] = True
        item["masks"] = tv_tensors.Mask(masks)
        return item

    return make


class RandomDataset(Dataset):
    """Images of random numbers from torch's global generator; keeps no records."""

    def __init__(self, *, length: int) -> None:
        self.length = length
        self.class_map = ClassMap(("a", "b"))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Example:
        item = _example(image_id=index)
        item["image"] = tv_tensors.Image(torch.randint(0, 256, (3, 6, 8), dtype=torch.uint8))
        return item


@pytest.fixture
def random_dataset() -> Dataset:
    return RandomDataset(length=7)


class Coco:
    """A small COCO dataset: images of 40 x 30 (w x h), and content that can be bent before it is written."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.images = folder, folder / "images"
        self.images.mkdir()
        self.data: dict[str, Any] = {
            "images": [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in (5, 3, 8)],
            "categories": [{"id": i, "name": name} for i, name in ((3, "cat"), (7, "dog"), (90, "owl"))],
            "annotations": [
                self.box(1, 3, 7, [10, 5, 20, 10]),
                self.box(2, 5, 3, [0, 0, 4, 4]),
                self.box(3, 3, 90, [1.5, 2.25, 3, 4], iscrowd=1),
            ],
        }
        for row in self.data["images"]:
            pixels = np.random.RandomState(row["id"]).randint(0, 256, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(self.images / row["file_name"])

    @staticmethod
    def box(number: int, image: int, category: int, bbox: list[float], **more: Any) -> dict[str, Any]:
        area = bbox[2] * bbox[3]
        return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, "area": area, **more}

    def write(self, text: str | bytes | None = None) -> dict[str, Path]:
        path = self.folder / "instances.json"
        content = json.dumps(self.data) if text is None else text
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return {"annotations": path, "images": self.images}


@pytest.fixture
def coco(tmp_path) -> Coco:
    return Coco(tmp_path)


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """A folder with real data, from ``DETCORE_DATA`` or beside the repository."""
    root = Path(os.environ.get("DETCORE_DATA", Path(__file__).parents[4] / "shared" / "data"))

    def find(name: str) -> Path:
        if not (root / name).is_dir():
            pytest.skip(f"no real data: {root / name} does not exist (DETCORE_DATA names another folder)")
        return root / name

    return find
