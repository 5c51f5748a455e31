"""Instance masks of a batch, stored as crops to their boxes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Int, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Masks:
    """Binary masks, each kept as the crop to its own extent; dense [B, M, H, W] would be gigabytes.

    Args:
        values: The crops of all images one after another, row-major, 0 or 1.
        offsets: Where each mask's crop starts in ``values``.
        sizes: (h, w) of each crop; zeros in padded rows and for empty masks.
        origins: (x, y) of each crop's corner in the image.
        image_size: (h, w) of the images.
    """

    values: UInt8[Tensor, "T"]
    offsets: Int[Tensor, "B M"]
    sizes: Int[Tensor, "B M 2"]
    origins: Int[Tensor, "B M 2"]
    image_size: tuple[int, int]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """A copy whose tensors are on ``device``."""
        fields = {
            name: getattr(self, name).to(device, non_blocking=non_blocking)
            for name in ("values", "offsets", "sizes", "origins")
        }
        return dataclasses.replace(self, **fields)

    @classmethod
    def stack(cls, images: Sequence[Tensor], boxes: Sequence[Tensor], rows: int) -> Self:
        raise NotImplementedError
