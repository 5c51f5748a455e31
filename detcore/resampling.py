"""Resampling of masks: out of an image into boxes, and from boxes back into an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

#: Pixels that one step works on; bounds the memory.
CHUNK = 2**22

#: Most samples in a cell, in image lengths: only longer cells get fewer than one sample per pixel.
MOST_SAMPLES = 8


def axis_weights(
    start: Float[Tensor, "n"],
    end: Float[Tensor, "n"],
    cells: int,
    limit: int,
    origin: Int[Tensor, "n"],
    extent: int,
) -> Float[Tensor, "n cells extent"]:
    """How much each pixel of a crop counts in each output cell, along one axis.

    The arithmetic is that of RoIAlign step by step, so that the same float32 samples come out: cells of equal
    length, in each ceil(length) samples at equal distances; samples up to one pixel beyond the image take the
    pixel at its border, samples farther away are zero.

    Args:
        start: Where the boxes begin, in pixels.
        end: Where they end.
        cells: Output cells.
        limit: Pixels of the image.
        origin: First pixel of each crop.
        extent: Pixels of the longest crop.
    """
    finite = start.isfinite() & end.isfinite()
    first = start.where(finite, 0) - 0.5
    length = (end.where(finite, 0) - 0.5 - first) / cells
    count = length.ceil().clamp(min=0, max=MOST_SAMPLES * limit)
    steps = torch.arange(int(count.max()), device=start.device)
    cell = torch.arange(cells, device=start.device)[:, None]
    within = (steps + 0.5) * length[:, None] / count.clamp(min=1)[:, None]
    place = (first[:, None, None] + cell * length[:, None, None]) + within[:, None, :]
    counts = (steps < count[:, None])[:, None, :] & (place >= -1) & (place <= limit)
    place = place.clamp(min=0, max=limit - 1)
    low = place.floor()
    ahead = place - low
    weights = start.new_zeros((len(start), cells, extent))
    for pixel, weight in ((low, 1 - ahead), (low + 1, ahead)):
        index = pixel.where(counts, 0).long() - origin[:, None, None]
        inside = counts & (index >= 0) & (index < extent)
        weights.scatter_add_(2, index.where(inside, 0), weight.where(inside, 0))
    return weights / count.clamp(min=1)[:, None, None]


def most_samples(
    boxes: Float[Tensor, "n 4"], out: tuple[int, int], image_size: tuple[int, int]
) -> Int[Tensor, "n"]:
    """Bound of the samples that :func:`axis_weights` takes along the longer axis of each box."""
    cells, length = max(out), (boxes[:, 2:] - boxes[:, :2]).amax(-1).nan_to_num(nan=0.0)
    return length.clamp(min=0, max=cells * MOST_SAMPLES * max(image_size)).long() + cells


def paste(
    masks: Float[Tensor, "n h w"], boxes: Float[Tensor, "n 4"], size: Sequence[int], threshold: float = 0.5
) -> Bool[Tensor, "n H W"]:
    """Masks on the cells of boxes, put into whole images.

    A pixel takes the mask's value at its own centre: bilinear between the centres of the cells, falling to
    zero within half a cell outside the box.

    Args:
        masks: Probabilities 0..1.
        boxes: xyxy in pixels; those without extent give empty masks.
        size: (h, w) of the images in pixels.
        threshold: Least probability of a mask's pixel.
    """
    height, width = size
    result = torch.zeros((len(masks), height, width), dtype=torch.bool, device=masks.device)
    step = max(1, CHUNK // max(1, height * width))
    for start in range(0, len(masks), step):
        chunk = slice(start, start + step)
        along_y = _paste_weights(boxes[chunk, 1], boxes[chunk, 3], masks.shape[1], height)
        along_x = _paste_weights(boxes[chunk, 0], boxes[chunk, 2], masks.shape[2], width)
        with torch.autocast(masks.device.type, enabled=False):
            result[chunk] = along_y @ masks[chunk].to(along_y.dtype) @ along_x.mT >= threshold
    return result


def _paste_weights(
    start: Float[Tensor, "n"], end: Float[Tensor, "n"], cells: int, pixels: int
) -> Float[Tensor, "n pixels cells"]:
    """How much each cell counts in each pixel, along one axis: a tent around the cell's centre."""
    extent = (end - start).float()
    scale = cells / extent.where(extent > 0, 1)
    centre = torch.arange(pixels, device=start.device) + 0.5
    position = (centre - start[:, None]) * scale[:, None] - 0.5
    tent = (1 - (position[..., None] - torch.arange(cells, device=start.device)).abs()).clamp(min=0)
    return tent * (extent > 0)[:, None, None]


def paste_whole_pixels(
    masks: Float[Tensor, "n h w"], boxes: Float[Tensor, "n 4"], size: Sequence[int], threshold: float = 0.5
) -> Bool[Tensor, "n H W"]:
    """As :func:`paste`, with boxes that are brought to whole pixels first, as torchvision and Caffe2 do.

    A mask gets a border of one empty cell, its box grows by as much, and its corners are cut to whole pixels,
    of which the last ones belong to it; the mask is resized to that. Synchronises with the device.

    Args:
        masks: Probabilities 0..1, square.
        boxes: xyxy in pixels.
        size: (h, w) of the images in pixels.
        threshold: Least probability of a mask's pixel.
    """
    height, width = size
    result = torch.zeros((len(masks), height, width), dtype=torch.bool, device=masks.device)
    cells = max(1, masks.shape[-1])
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * ((cells + 2) / cells)
    center = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    corners = torch.cat((center - half, center + half), dim=1).long().tolist()  # cut towards zero
    padded = F.pad(masks, (1, 1, 1, 1))
    for i, (x1, y1, x2, y2) in enumerate(corners):
        shape = (max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1))
        resized = F.interpolate(padded[i, None, None], shape, mode="bilinear", align_corners=False)[0, 0]
        top, left, bottom, right = max(y1, 0), max(x1, 0), min(y2 + 1, height), min(x2 + 1, width)
        if top < bottom and left < right:
            seen = resized[top - y1 : bottom - y1, left - x1 : right - x1]
            result[i, top:bottom, left:right] = seen >= threshold
    return result
