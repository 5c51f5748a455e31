"""Batches of images as they came, for detectors that hand them on to others, each of which prepares them itself.

Such a batch is an :class:`~detcore.structures.ImageBatch` whose pixels are neither normalised nor resized: uint8,
or float on the scale 0..1 where an image is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detcore.errors import DataError
from detcore.structures import ImageBatch, ImageGeometry


def raw_batch(
    images: Sequence[Tensor], geometry: Sequence[ImageGeometry] | None, device: torch.device
) -> ImageBatch:
    """Images side by side, padded with zeros to the largest.

    Args:
        images: uint8, or float within 0..1, [3, H, W], of any sizes.
        geometry: The way back to the files; identity where None.
        device: Where to put them.

    Raises:
        DataError: There is no image, or one is not of this form.
    """
    if not len(images):
        raise DataError("a batch needs at least one image")
    for index, image in enumerate(images):
        _check(index, image)
    whole = all(image.dtype == torch.uint8 for image in images)
    sizes = [(int(image.shape[1]), int(image.shape[2])) for image in images]
    canvas = (max(h for h, _ in sizes), max(w for _, w in sizes))
    pixels = torch.zeros(
        (len(images), 3, *canvas), dtype=torch.uint8 if whole else torch.float32, device=device
    )
    for row, image, (height, width) in zip(pixels, images, sizes, strict=True):
        scale = 255.0 if image.dtype == torch.uint8 and not whole else None
        row[:, :height, :width] = image.to(device) if scale is None else image.to(device) / scale
    return ImageBatch.of(pixels, sizes, sizes, geometry)


def raw_images(batch: ImageBatch) -> list[Tensor]:
    """The images of such a batch, without padding."""
    return [
        row[:, :height, :width]
        for row, (height, width) in zip(batch.pixels, batch.sizes.tolist(), strict=True)
    ]


def device_of(module: nn.Module) -> torch.device:
    """Where a module's parameters (else buffers) are; the CPU where it has none."""
    for tensors in (module.parameters(), module.buffers()):
        for tensor in tensors:
            return tensor.device
    return torch.device("cpu")


def _check(index: int, image: Tensor) -> None:
    if not isinstance(image, Tensor) or image.dim() != 3 or image.shape[0] != 3 or 0 in image.shape:
        what = list(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise DataError(f"images[{index}]: expected a tensor [3, H, W], got {what}")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise DataError(f"images[{index}]: expected uint8 (0..255) or float (0..1), got {image.dtype}")
