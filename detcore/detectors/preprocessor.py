"""Normalising, resizing and padding of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import torch
from jaxtyping import Int, UInt8
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from detcore.errors import DataError
from detcore.interfaces.preprocessor import Preprocessor
from detcore.structures import ImageBatch, ImageGeometry

Triple = tuple[float, float, float]
Edge = Annotated[int, Field(ge=1)]


class ImagePreprocessor(Preprocessor):
    """Subtracts a mean, divides by a standard deviation, pads right and bottom with zeros.

    The defaults are those of torchvision's and MMDetection's ImageNet weights.

    With ``min_size`` images are resized in evaluation mode, so that a detector may be given images of any size,
    as torchvision's detectors do (``GeneralizedRCNNTransform``; Ren et al., arXiv:1506.01497, section 3.3):
    by min(min_size / short edge, max_size / long edge), bilinear, sizes rounded down. Images that were resized
    before by the same numbers stay as they are. In training mode nothing is resized: boxes and masks have to
    be resized too, which is what the transforms of the data are for.

    Args:
        mean: Per channel, in the order red, green, blue, on the scale 0..255.
        std: Likewise.
        size_divisor: Heights and widths are padded to multiples of it, in pixels.
        channel_order: Order in which the network wants the channels; "bgr" for Caffe weights.
        min_size: Length in pixels to which short edges are brought in evaluation mode; None resizes nothing.
        max_size: Limit in pixels of the long edges then.

    Raises:
        ConfigError: A standard deviation is not positive; ``max_size`` without ``min_size``, or below it.
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
        min_size: Edge | None = None,
        max_size: Edge | None = None,
    ) -> None:
        super().__init__()
        if min(std) <= 0:
            raise ValueError(f"std should be positive, got {std}")
        if max_size is not None and min_size is None:
            raise ValueError(
                f"max_size={max_size} limits what min_size asks for; give min_size, or leave it out"
            )
        if max_size is not None and min_size is not None and max_size < min_size:
            raise ValueError(f"max_size={max_size} is shorter than the short edge min_size={min_size}")
        self.min_size, self.max_size = min_size, max_size
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
        normal = [self._normalise(image) for image in images]
        if self.min_size is not None and not self.training:
            normal, geometry = self._resized(normal, geometry)
        sizes = [_size(image) for image in normal]
        padded = [(self._round_up(h), self._round_up(w)) for h, w in sizes]
        height, width = max(h for h, _ in padded), max(w for _, w in padded)
        pixels = self.mean.new_zeros((len(images), 3, height, width))
        for row, image, (h, w) in zip(pixels, normal, sizes, strict=True):
            row[:, :h, :w] = image
        return ImageBatch.of(pixels, sizes, padded, geometry)

    def stacked(
        self, images: UInt8[Tensor, "B 3 H W"], sizes: Int[Tensor, "B 2"] | None = None
    ) -> ImageBatch:
        """Images that are one tensor already, normalised and padded as by :meth:`forward`; nothing is resized.

        Tensor operations only, with no loop over images: what an exported detector begins with.

        Args:
            images: 0..255.
            sizes: True (h, w) of each image, where images were padded to stack them; what is beyond becomes
                padding. All of the tensor where None.
        """
        count, _, height, width = images.shape
        rows, columns = (self._round_up(length) - length for length in (height, width))
        pixels = (images.to(self.mean.device, self.mean.dtype) - self.mean) / self.std
        pixels = pixels.flip(1) if self.channel_order == "bgr" else pixels
        if sizes is None:
            whole = [
                torch.full((count,), n, dtype=torch.int64, device=pixels.device) for n in (height, width)
            ]
            sizes = torch.stack(whole, dim=1)
        else:
            h, w = sizes.to(pixels.device)[:, :, None].unbind(1)
            inside = (torch.arange(height, device=h.device) < h)[:, None, :, None]
            inside = inside & (torch.arange(width, device=w.device) < w)[:, None, None, :]
            pixels = torch.where(inside, pixels, 0)
        one, none = torch.ones_like(sizes, dtype=torch.float32), torch.zeros_like(sizes, dtype=torch.float32)
        return ImageBatch(
            pixels=F.pad(pixels, (0, columns, 0, rows)),
            sizes=sizes,
            padded_sizes=(sizes + (self.size_divisor - 1)) // self.size_divisor * self.size_divisor,
            original_sizes=sizes,
            scale=one,
            origin=none,
            flip=torch.zeros_like(sizes, dtype=torch.bool),
        )

    def _resized(
        self, images: Sequence[Tensor], geometry: Sequence[ImageGeometry] | None
    ) -> tuple[list[Tensor], list[ImageGeometry]]:
        """The images at the size that is asked for, and the way from there to the files."""
        before = [ImageGeometry(_size(image)) for image in images] if geometry is None else geometry
        after = [_resize(image, self._target_size(_size(image))) for image in images]
        return after, [_scaled(*way) for way in zip(before, images, after, strict=True)]

    def _target_size(self, size: tuple[int, int]) -> tuple[int, int]:
        factor = (self.min_size or min(size)) / min(size)
        if self.max_size is not None:
            factor = min(factor, self.max_size / max(size))
        return max(1, math.floor(size[0] * factor)), max(1, math.floor(size[1] * factor))

    def _round_up(self, length: int) -> int:
        # nothing negative is divided: ONNX, to which this is exported, divides towards zero
        return (length + self.size_divisor - 1) // self.size_divisor * self.size_divisor

    def _normalise(self, image: Tensor) -> Tensor:
        image = image.to(self.mean.device)
        scaled = image.to(self.mean.dtype) * (255.0 if image.is_floating_point() else 1.0)
        normal = (scaled - self.mean) / self.std
        return normal.flip(0) if self.channel_order == "bgr" else normal


def _size(image: Tensor) -> tuple[int, int]:
    return int(image.shape[-2]), int(image.shape[-1])


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    if size == _size(image):
        return image
    return F.interpolate(image[None], size, mode="bilinear", align_corners=False)[0]


def _scaled(way: ImageGeometry, before: Tensor, after: Tensor) -> ImageGeometry:
    """How an image came from its file that was resized once more."""
    (h, w), (new_h, new_w) = _size(before), _size(after)
    x, y = new_w / w, new_h / h
    return replace(
        way, scale=(way.scale[0] * x, way.scale[1] * y), origin=(way.origin[0] * x, way.origin[1] * y)
    )


def _check(index: int, image: Tensor) -> None:
    if not isinstance(image, Tensor) or image.dim() != 3 or image.shape[0] != 3 or 0 in image.shape:
        what = list(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise DataError(f"images[{index}]: expected a tensor [3, H, W], got {what}")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise DataError(f"images[{index}]: expected uint8 (0..255) or float (0..1), got {image.dtype}")
