"""Inputs that every contender gets alike."""

from __future__ import annotations

import torch
from torch import Tensor

#: Height and width whose five levels of nine anchors are 193,374 priors.
SIZE = (768, 1344)
STRIDES = (8, 16, 32, 64, 128)
LEVELS = tuple((-(-SIZE[0] // stride), -(-SIZE[1] // stride)) for stride in STRIDES)
PRIORS = 9 * sum(h * w for h, w in LEVELS)
CLASSES = 80


def device() -> torch.device:
    """The accelerator, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def boxes(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Boxes xyxy [count, 4] inside an image of (h, w), most of them small."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([size[1], size[0]], dtype=torch.float32)
    sides = 8 + torch.rand(count, 2, generator=generator).pow(3) * (scale * 0.6 - 8)
    low = torch.rand(count, 2, generator=generator) * (scale - sides)
    return torch.cat([low, low + sides], 1).to(device())


def labels(count: int, seed: int = 0) -> Tensor:
    """Classes [count]."""
    return torch.randint(CLASSES, (count,), generator=torch.Generator().manual_seed(seed)).to(device())


def image(size: tuple[int, int], seed: int = 0) -> Tensor:
    """A picture [3, h, w] of bytes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (3, *size), generator=generator, dtype=torch.uint8).to(device())
