"""Makes the pictures of ``docs/augmentation.md`` from generated shapes: ``python docs/images/augmentation.py``."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import detcore_augment as augment
import torch
from detcore_data import ShapesDataset, seeded
from torch import Tensor
from torchvision.io import write_jpeg
from torchvision.transforms.v2 import functional as F
from torchvision.utils import draw_bounding_boxes

from detcore.interfaces import Example, Transform

TILE = 220
COLORS = ("red", "lime", "cyan")


def tile(example: Example) -> Tensor:
    """The example with its boxes, yellow where they are to be ignored, fitted into a square."""
    image, boxes = example["image"].as_subclass(Tensor), example["boxes"].as_subclass(Tensor)
    if len(boxes):
        pairs = zip(example["labels"].tolist(), example["ignore"].tolist(), strict=True)
        colors = ["yellow" if ignored else COLORS[label] for label, ignored in pairs]
        image = draw_bounding_boxes(image, boxes, colors=colors, width=max(2, max(image.shape[-2:]) // 110))
    factor = TILE / max(image.shape[-2:])
    image = F.resize(image, [int(edge * factor) for edge in image.shape[-2:]])
    return F.pad(image, [0, 0, TILE - image.shape[-1], TILE - image.shape[-2]], fill=[255.0])


def strip(folder: str, steps: Sequence[Sequence[Transform]], index: int = 3) -> Tensor:
    """One item under each of several lists of transforms, side by side."""
    tiles = []
    for transforms in steps:
        data = ShapesDataset(
            root=Path(folder), length=12, size=(220, 220), with_masks=True, transforms=tuple(transforms)
        )
        tiles.append(tile(seeded(data, 8)[index]))
    gap = torch.full((3, TILE, 6), 255, dtype=torch.uint8)
    return torch.cat([part for one in tiles for part in (one, gap)][:-1], dim=2)


def main() -> None:
    """Writes both pictures beside this file."""
    here = Path(__file__).parent
    mosaic = augment.Mosaic(img_scale=(220, 220))
    turned = ({"type": "SafeRotate", "p": 1.0}, {"type": "MotionBlur", "p": 1.0})
    affine = augment.RandomAffine(border=(-110, -110))
    with tempfile.TemporaryDirectory() as folder:
        mixed = strip(
            folder,
            [(), (mosaic,), (mosaic, affine), (augment.MixUp(img_scale=(220, 220)),), (augment.CopyPaste(),)],
        )
        single = strip(
            folder,
            [
                (augment.RandomAffine(max_rotate_degree=30),),
                (augment.RandomCrop(crop_size=(0.5, 0.5), crop_type="relative"),),
                (augment.MinIoURandomCrop(),),
                (augment.Expand(prob=1.0, ratio_range=(2.0, 2.5)),),
                (augment.Albumentations(transforms=turned),),
            ],
        )
    write_jpeg(mixed, str(here / "augmentation_mixed.jpg"), quality=80)
    write_jpeg(single, str(here / "augmentation_single.jpg"), quality=80)


if __name__ == "__main__":
    main()
