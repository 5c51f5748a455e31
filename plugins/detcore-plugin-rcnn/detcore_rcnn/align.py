"""Resampling of regions out of feature maps."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detcore.operators import roi_align


def align(
    feature: Float[Tensor, "B C H W"],
    boxes: Float[Tensor, "P 4"],
    image: Int[Tensor, "P"],
    stride: int,
    output_size: tuple[int, int],
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> Float[Tensor, "P C h w"]:
    """RoIAlign (He et al., Mask R-CNN, arXiv:1703.06870) from one level of a pyramid.

    Args:
        feature: The level.
        boxes: xyxy in pixels.
        image: Image of each box.
        stride: Pixels per cell of the level.
        output_size: (h, w) of the result, in cells.
        sampling_ratio: Samples per cell and axis; 0 for as many as the cell has pixels of the level.
        aligned: Whether samples are placed by the centres of the level's cells; False is half a cell off, as
            the first implementations were.
    """
    # In half precision a coordinate beyond 1024 is rounded to whole pixels and more.
    source = feature.float() if feature.dtype in (torch.float16, torch.bfloat16) else feature
    rois = torch.cat((image[:, None].to(source.dtype), boxes.to(source.dtype)), dim=1)
    pooled = roi_align(source, rois, output_size, 1 / stride, sampling_ratio, aligned)
    return pooled.to(feature.dtype)


def rescale(boxes: Float[Tensor, "P 4"], factor: float) -> Float[Tensor, "P 4"]:
    """Boxes with their sides times ``factor`` around the same centres."""
    center, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * factor
    return torch.cat((center - half, center + half), dim=1)


def pyramid_levels(boxes: Float[Tensor, "P 4"], finest_scale: float, count: int) -> Int[Tensor, "P"]:
    """The level that each box is read from: one coarser for each doubling of its size.

    Lin et al., Feature Pyramid Networks (arXiv:1612.03144), equation 1.

    Args:
        boxes: xyxy in pixels.
        finest_scale: Boxes smaller than twice this (root of the area, in pixels) are read from level 0.
        count: Number of levels.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    scale = sides.prod(1).sqrt()
    # the small number keeps the logarithm finite, and sizes on the border on their side of it
    return (scale / finest_scale + 1e-6).log2().floor().clamp(0, count - 1).long()
