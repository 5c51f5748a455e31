"""Normalising and padding of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from detcore.errors import DataError
from detcore.interfaces.preprocessor import Preprocessor
from detcore.structures import ImageBatch, ImageGeometry

Triple = tuple[float, float, float]


class ImagePreprocessor(Preprocessor):
    """Subtracts a mean, divides by a standard deviation, pads right and bottom with zeros.

    The defaults are those of torchvision's and MMDetection's ImageNet weights.

    Args:
        mean: Per channel, in the order red, green, blue, on the scale 0..255.
        std: Likewise.
        size_divisor: Heights and widths are padded to multiples of it, in pixels.
        channel_order: Order in which the network wants the channels; "bgr" for Caffe weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        mean: Triple = (123.675, 116.28, 103.53),
        std: Triple = (58.395, 57.12, 57.375),
        size_divisor: Annotated[int, Field(ge=1)] = 32,
        channel_order: Literal["rgb", "bgr"] = "rgb",
    ) -> None:
        super().__init__()
        if min(std) <= 0:
            raise ValueError(f"std should be positive, got {std}")
        self.size_divisor, self.channel_order = size_divisor, channel_order
        # constants, not weights: they live in the configuration, so checkpoints of others still fit
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(
        self, images: Sequence[Tensor], geometry: Sequence[ImageGeometry] | None = None
    ) -> ImageBatch:
        """See :class:`~detcore.interfaces.Preprocessor`.

        Raises:
            DataError: There is no image, or one is not [3, H, W] of uint8 or float; names its place and shape.
        """
        for i, image in enumerate(images):
            _check(i, image)
        if not len(images):
            raise DataError("a batch needs at least one image")
        sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
        padded = [(self._round_up(h), self._round_up(w)) for h, w in sizes]
        height, width = max(h for h, _ in padded), max(w for _, w in padded)
        pixels = self.mean.new_zeros((len(images), 3, height, width))
        for row, image, (h, w) in zip(pixels, images, sizes, strict=True):
            row[:, :h, :w] = self._normalise(image)
        return ImageBatch.of(pixels, sizes, padded, geometry)

    def _round_up(self, length: int) -> int:
        return -(-length // self.size_divisor) * self.size_divisor

    def _normalise(self, image: Tensor) -> Tensor:
        image = image.to(self.mean.device)
        scaled = image.to(self.mean.dtype) * (255.0 if image.is_floating_point() else 1.0)
        normal = (scaled - self.mean) / self.std
        return normal.flip(0) if self.channel_order == "bgr" else normal


def _check(index: int, image: Tensor) -> None:
    if not isinstance(image, Tensor) or image.dim() != 3 or image.shape[0] != 3 or 0 in image.shape:
        what = list(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise DataError(f"images[{index}]: expected a tensor [3, H, W], got {what}")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise DataError(f"images[{index}]: expected uint8 (0..255) or float (0..1), got {image.dtype}")
