"""Made-up examples and a dataset of them: what transforms and metrics get."""

from __future__ import annotations

import torch
from torchvision import tv_tensors

from detcore.interfaces import Dataset, Example
from detcore.structures import ClassMap, ImageGeometry

#: Size (h, w) of the pictures.
SIZE = (60, 80)


def make_example(*, objects: int = 2, masks: bool = False, index: int = 0, seed: int = 0) -> Example:
    """A dark picture with a white rectangle for each object, far from each other and from the border.

    Args:
        objects: How many, at most 4.
        masks: Whether it has masks.
        index: Its place in a dataset.
        seed: Another seed, other places.
    """
    generator = torch.Generator().manual_seed(1000 * seed + index)
    height, width = SIZE
    image = torch.randint(0, 30, (3, height, width), dtype=torch.uint8, generator=generator)
    corner = torch.tensor([[0, 0], [40, 30], [40, 0], [0, 30]])[:objects]
    corner = corner + torch.randint(4, 10, (objects, 2), generator=generator)
    boxes = torch.cat((corner, corner + torch.randint(10, 18, (objects, 2), generator=generator)), 1)
    shapes = torch.zeros(objects, height, width, dtype=torch.bool)
    for shape, (x1, y1, x2, y2) in zip(shapes, boxes.tolist(), strict=True):
        image[:, y1:y2, x1:x2] = 255
        shape[y1:y2, x1:x2] = True
    example = Example(
        image=tv_tensors.Image(image),
        boxes=tv_tensors.BoundingBoxes(
            boxes.float().reshape(-1, 4), format=tv_tensors.BoundingBoxFormat.XYXY, canvas_size=SIZE
        ),
        labels=torch.arange(objects) % 3,
        ignore=torch.zeros(objects, dtype=torch.bool),
        image_id=10 + index,
        file=f"{index}.png",
        geometry=ImageGeometry(SIZE),
    )
    if masks:
        example["masks"] = tv_tensors.Mask(shapes)
    return example


class MadeUpDataset(Dataset):
    """Made-up pictures with 2, 0, 1, 3, 4 objects in turn.

    Args:
        length: Number of pictures.
        seed: Another seed, other pictures.
    """

    def __init__(self, *, length: int = 5, seed: int = 0) -> None:
        self.length, self.seed = length, seed
        self.class_map = ClassMap(("a", "b", "c"), (3, 5, 8))

    def __len__(self) -> int:
        """Number of images."""
        return self.length

    def __getitem__(self, index: int) -> Example:
        """See :class:`~detcore.interfaces.Dataset`."""
        if not 0 <= index < self.length:
            raise IndexError(index)
        return make_example(objects=(2, 0, 1, 3, 4)[index % 5], index=index, seed=self.seed)
