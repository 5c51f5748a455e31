from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torchvision import tv_tensors

from detcore.interfaces import Example
from detcore.structures import ImageGeometry

#: The colour of objects of label k; far from each other and from the grey background.
COLORS = torch.tensor(
    [
        [255, 0, 0],
        [0, 255, 0],
        [0, 0, 255],
        [255, 255, 0],
        [255, 0, 255],
        [0, 255, 255],
        [255, 255, 255],
        [0, 0, 0],
    ]
)
GREY = 114


def _picture(
    size: tuple[int, int] = (24, 32),
    boxes: Sequence[Sequence[int]] = ((2, 3, 10, 11), (12, 2, 30, 9), (14, 12, 20, 22)),
    *,
    labels: Sequence[int] | None = None,
    ignore: Sequence[int] = (),
    masks: bool = True,
    image_id: int = 7,
) -> Example:
    """Grey, with a rectangle in its label's colour for each object; later ones lie over earlier ones."""
    image = torch.full((3, *size), GREY, dtype=torch.uint8)
    labels = list(range(len(boxes))) if labels is None else list(labels)
    shapes = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for row, (x1, y1, x2, y2) in enumerate(boxes):
        image[:, y1:y2, x1:x2] = COLORS[labels[row]].to(torch.uint8)[:, None, None]
        shapes[:, y1:y2, x1:x2] = False
        shapes[row, y1:y2, x1:x2] = True
    example = Example(
        image=tv_tensors.Image(image),
        boxes=tv_tensors.BoundingBoxes(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), format="XYXY", canvas_size=size
        ),
        labels=torch.tensor(labels, dtype=torch.int64),
        ignore=torch.tensor([row in ignore for row in range(len(boxes))], dtype=torch.bool),
        image_id=image_id,
        file=f"{image_id}.png",
        geometry=ImageGeometry(size),
    )
    if masks:
        example["masks"] = tv_tensors.Mask(shapes)
    return example


@pytest.fixture(scope="session")
def picture() -> Callable[..., Example]:
    return _picture


@pytest.fixture(scope="session")
def seen() -> Callable[..., dict[int, list[float]]]:
    """The extent of each colour in a picture, by label."""

    def find(image: torch.Tensor, tolerance: int = 0) -> dict[int, list[float]]:
        found = {}
        for label, color in enumerate(COLORS):
            near = (image.as_subclass(torch.Tensor).long() - color[:, None, None]).abs().amax(0) <= tolerance
            if near.any():
                y, x = near.nonzero().unbind(1)
                found[label] = [float(v) for v in (x.min(), y.min(), x.max() + 1, y.max() + 1)]
        return found

    return find


@pytest.fixture(scope="session")
def boxes_by_label() -> Callable[[Example], dict[int, list[float]]]:
    def find(example: Example) -> dict[int, list[float]]:
        boxes = example["boxes"].as_subclass(torch.Tensor)
        found = dict(zip(example["labels"].tolist(), boxes.tolist(), strict=True))
        assert len(found) == len(boxes)
        return found

    return find
