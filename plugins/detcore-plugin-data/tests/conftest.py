from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torchvision import tv_tensors

from detcore.interfaces import Dataset, Example
from detcore.structures import ClassMap, ImageGeometry


def _example(
    height: int = 6, width: int = 8, boxes: tuple[tuple[float, ...], ...] = ((1, 1, 4, 5),), image_id: int = 7
) -> Example:
    n = len(boxes)
    return Example(
        image=tv_tensors.Image(
            torch.arange(3 * height * width, dtype=torch.int64).reshape(3, height, width).to(torch.uint8)
        ),
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


class RandomDataset(Dataset):
    """Images of random numbers from torch's global generator."""

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
