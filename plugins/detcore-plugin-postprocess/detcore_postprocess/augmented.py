"""A detector that looks at several versions of each image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from detcore.component import Part, make, wired
from detcore.detectors import WrappedDetector
from detcore.interfaces import Detector
from detcore.structures import Detections, ImageBatch
from detcore_postprocess.merger import Merger
from detcore_postprocess.nms_merger import NMSMerger


class AugmentedDetector(WrappedDetector):
    """Test-time augmentation around any detector: it sees each image at several scales and mirrored.

    What it finds in each version is brought back to the image and put together by the merger. Training goes to the
    detector as if nothing stood around it.

    Every version costs a prediction: ``len(scales) * (1 + flip)`` in all.

    Args:
        num_classes: K; supplied by the owner or by the detector.
        detector: What predicts. A trained one is given as it is: ``AugmentedDetector(detector=detector)``.
        scales: Factors of the images' sizes.
        flip: Whether each scale is also seen mirrored left to right.
        merger: How the detections of all versions become one set: suppression, with masks coming along
            (:class:`NMSMerger`), or fusion (:class:`WeightedBoxesFusion`).
        max_per_img: Rows of the result per image (Q).
        size_divisor: Scaled images are padded to a multiple of it, in pixels.
    """

    def __init__(
        self,
        *,
        num_classes: Annotated[int, Field(ge=1)] | None = wired(None),
        detector: Part[Detector],
        scales: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (1.0,),
        flip: bool = True,
        merger: Part[Merger] = NMSMerger.spec(),
        max_per_img: Annotated[int, Field(ge=1)] = 100,
        size_divisor: Annotated[int, Field(ge=1)] = 32,
    ) -> None:
        super().__init__(num_classes=num_classes, detector=detector)
        self.scales = scales
        self.flip = flip
        self.merger = make(merger)
        self.max_per_img = max_per_img
        self.size_divisor = size_divisor

    def predict(self, batch: ImageBatch) -> Detections:
        """See :class:`~detcore.interfaces.Detector`."""
        found = [self.detector.predict(version).to_original(version) for version in self.versions(batch)]
        return self.merger(found, max_per_img=self.max_per_img)

    def versions(self, batch: ImageBatch) -> Iterator[ImageBatch]:
        """The images at each scale, as they are and mirrored; the way "home" leads to ``batch``."""
        for scale in self.scales:
            version = scaled(batch, scale, self.size_divisor)
            yield version
            if self.flip:
                across = torch.ones_like(version.flip[:, 0])
                yield version.replace(
                    pixels=_mirrored(version.pixels, version.sizes[:, 1]),
                    flip=torch.stack((across, ~across), 1),
                )


def scaled(batch: ImageBatch, factor: float, divisor: int) -> ImageBatch:
    """The images larger or smaller, padded anew; ``original_sizes`` and ``scale`` lead back to ``batch``.

    Args:
        batch: The images.
        factor: Of their true sizes, which are rounded to whole pixels; images as they are where it is 1.
        divisor: Sizes are padded to a multiple of it.
    """
    if factor == 1:
        sizes, padded, pixels = batch.sizes, batch.padded_sizes, batch.pixels
    else:
        sizes = (batch.sizes * factor).round().long().clamp(min=1)
        padded = (sizes + divisor - 1) // divisor * divisor
        height, width = padded.amax(0).tolist() if len(batch) else (divisor, divisor)
        pixels = _resampled(batch.pixels, batch.sizes, sizes, (height, width))
    return ImageBatch(
        pixels=pixels,
        sizes=sizes,
        padded_sizes=padded,
        original_sizes=batch.sizes,
        scale=(sizes / batch.sizes.clamp(min=1)).flip(-1).to(batch.scale.dtype),
        origin=torch.zeros_like(batch.origin),
        flip=torch.zeros_like(batch.flip),
    )


def _resampled(
    pixels: Float[Tensor, "B 3 H W"],
    sizes: Int[Tensor, "B 2"],
    wanted: Int[Tensor, "B 2"],
    canvas: tuple[int, int],
) -> Float[Tensor, "B 3 h w"]:
    """Each image at its wanted size, bilinear, without what lies in its padding; 0 beyond it."""
    grids, inside = [], []
    for axis, length in enumerate(canvas):
        here = torch.arange(length, device=pixels.device)
        old, new = sizes[:, axis, None], wanted[:, axis, None]
        source = ((here + 0.5) * old / new - 0.5).clamp(min=0).minimum(old - 1)
        grids.append((source + 0.5) * 2 / pixels.shape[2 + axis] - 1)
        inside.append(here < new)
    (y, x), (rows, columns) = grids, inside
    shape = (len(pixels), *canvas)
    values = pixels if pixels.is_floating_point() else pixels.float()
    grid = torch.stack((x[:, None].expand(shape), y[:, :, None].expand(shape)), -1).to(values.dtype)
    result = F.grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if not pixels.is_floating_point():  # images as they came
        result = result.round().clamp(0, 255).to(pixels.dtype)
    real: Bool[Tensor, "B h w"] = rows[:, :, None] & columns[:, None]
    return torch.where(real[:, None], result, 0)


def _mirrored(pixels: Float[Tensor, "B 3 H W"], widths: Int[Tensor, "B"]) -> Float[Tensor, "B 3 H W"]:
    """Each image left to right within its own width; padding stays at the right."""
    here = torch.arange(pixels.shape[3], device=pixels.device)
    index = torch.where(here < widths[:, None], widths[:, None] - 1 - here, here)
    return pixels.gather(3, index[:, None, None].expand_as(pixels))
