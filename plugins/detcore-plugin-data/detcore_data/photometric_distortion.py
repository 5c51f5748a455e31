"""Changes of colour at random."""

from __future__ import annotations

from typing import Annotated, cast

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torchvision import tv_tensors

from detcore.interfaces import Example, Transform

Factor = Annotated[float, Field(ge=0)]


class PhotometricDistortion(Transform):
    """Brightness, contrast, saturation, hue and the order of the channels, each changed with probability 0.5.

    From SSD (Liu et al., "SSD: Single Shot MultiBox Detector", arXiv 1512.02325). Contrast comes before or
    after the change of colours, at random. Unlike the reference, which hands on floats beyond 0..255, the
    result is rounded to uint8.

    Args:
        brightness_delta: Largest value that is added to or taken from all pixels, on the scale 0..255.
        contrast_range: Lowest and highest factor for all pixels.
        saturation_range: Lowest and highest factor for the saturation.
        hue_delta: Largest rotation of the hue, in degrees.
        swap_channels: Whether the order of the channels may change.
    """

    def __init__(
        self,
        *,
        brightness_delta: Annotated[float, Field(ge=0, le=255)] = 32.0,
        contrast_range: tuple[Factor, Factor] = (0.5, 1.5),
        saturation_range: tuple[Factor, Factor] = (0.5, 1.5),
        hue_delta: Annotated[float, Field(ge=0, le=180)] = 18.0,
        swap_channels: bool = True,
    ) -> None:
        for name, (low, high) in (("contrast_range", contrast_range), ("saturation_range", saturation_range)):
            if low > high:
                raise ValueError(f"{name} should be (lowest, highest), got {(low, high)}")
        self.brightness_delta, self.hue_delta = brightness_delta, hue_delta
        self.contrast_range, self.saturation_range = contrast_range, saturation_range
        self.swap_channels = swap_channels

    def __call__(self, example: Example) -> Example:
        """See :class:`~detcore.interfaces.Transform`."""
        pixels = example["image"].as_subclass(Tensor).float()
        contrast = _uniform(*self.contrast_range) if _coin() else 1.0
        contrast_first = _coin()
        if _coin():
            pixels = pixels + _uniform(-self.brightness_delta, self.brightness_delta)
        if contrast_first:
            pixels = pixels * contrast
        if _coin():
            pixels = scale_saturation(pixels, _uniform(*self.saturation_range))
        if _coin():
            pixels = rotate_hue(pixels, _uniform(-self.hue_delta, self.hue_delta))
        if not contrast_first:
            pixels = pixels * contrast
        if _coin() and self.swap_channels:
            pixels = pixels[torch.randperm(3)]
        image = tv_tensors.Image(pixels.round().clamp(0, 255).to(torch.uint8))
        return cast(Example, {**example, "image": image})


def scale_saturation(pixels: Float[Tensor, "3 H W"], factor: float) -> Float[Tensor, "3 H W"]:
    """Saturation times a factor, in the HSV model: every channel's distance to the largest one is scaled."""
    value = pixels.amax(0, keepdim=True)
    return value - (value - pixels) * factor


def rotate_hue(pixels: Float[Tensor, "3 H W"], degrees: float) -> Float[Tensor, "3 H W"]:
    """The hue turned on its circle, in the HSV model; value and saturation stay."""
    red, green, blue = pixels
    value = pixels.amax(0)
    chroma = value - pixels.amin(0)
    safe = torch.where(chroma > 0, chroma, 1.0)
    sector = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    # channel n of the new colour: value - chroma * clamp(min(k, 4 - k), 0, 1), k = (n + sector) mod 6
    offsets = torch.tensor([5.0, 3.0, 1.0])[:, None, None]
    k = (sector + degrees / 60 + offsets) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


def _coin() -> bool:
    return bool(torch.rand(()) < 0.5)


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))
