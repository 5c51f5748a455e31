"""Changes of examples without randomness: image, boxes, masks and geometry move together."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from detcore.interfaces import Example

Size = tuple[int, int]


def rescaled_size(size: Size, scale: tuple[int, int]) -> Size:
    """The largest size of the same shape whose long and short edges fit.

    Args:
        size: (h, w) in pixels.
        scale: Limits of the long and the short edge, in either order.

    Returns:
        (h, w), each rounded half up as the reference does; at least 1.
    """
    ratio = min(max(scale) / max(size), min(scale) / min(size))
    height, width = (max(1, int(edge * ratio + 0.5)) for edge in size)
    return height, width


def short_edge_size(size: Size, short: int, max_size: int | None) -> Size:
    """The size of the same shape whose short edge is ``short``, or whose long edge is ``max_size`` if less.

    Args:
        size: (h, w) in pixels.
        short: Length of the short edge.
        max_size: Limit of the long edge; None for none.
    """
    ratio = short / min(size)
    if max_size is not None:
        ratio = min(ratio, max_size / max(size))
    height, width = (max(1, int(edge * ratio + 0.5)) for edge in size)
    return height, width


def resize(example: Example, size: Size, *, antialias: bool = True, clip: bool = True) -> Example:
    """The example with its image scaled to ``size``.

    Args:
        example: Left as it is.
        size: New (h, w) in pixels.
        antialias: Whether a smaller image averages over the pixels that it leaves out.
        clip: Whether boxes are cut off at the image's border.
    """
    old_height, old_width = example["image"].shape[-2:]
    height, width = size
    x, y = width / old_width, height / old_height  # the true factors, after rounding
    boxes = example["boxes"].as_subclass(Tensor) * torch.tensor([x, y, x, y])
    if clip:
        boxes = torch.minimum(boxes.clamp(min=0), torch.tensor([width, height, width, height]))
    geometry = example["geometry"]
    (scale_x, scale_y), (origin_x, origin_y) = geometry.scale, geometry.origin
    changes: dict[str, Any] = {
        "image": tv_tensors.Image(F.resize(example["image"], list(size), antialias=antialias)),
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
        "geometry": dataclasses.replace(
            geometry, scale=(scale_x * x, scale_y * y), origin=(origin_x * x, origin_y * y)
        ),
    }
    if "masks" in example:
        changes["masks"] = tv_tensors.Mask(_resize_masks(example["masks"].as_subclass(Tensor), size))
    return cast(Example, {**example, **changes})


def flip(example: Example, x: bool, y: bool) -> Example:
    """The example mirrored.

    Args:
        example: Left as it is.
        x: Whether left and right change places.
        y: Whether top and bottom change places.
    """
    if not (x or y):
        return cast(Example, {**example})
    height, width = example["image"].shape[-2:]
    dims = [dim for dim, flipped in ((-2, y), (-1, x)) if flipped]
    x1, y1, x2, y2 = example["boxes"].as_subclass(Tensor).unbind(-1)
    x1, x2 = (width - x2, width - x1) if x else (x1, x2)
    y1, y2 = (height - y2, height - y1) if y else (y1, y2)
    geometry = example["geometry"]
    changes: dict[str, Any] = {
        "image": tv_tensors.Image(example["image"].as_subclass(Tensor).flip(dims)),
        "boxes": tv_tensors.BoundingBoxes(
            torch.stack((x1, y1, x2, y2), dim=-1), format="XYXY", canvas_size=(height, width)
        ),
        "geometry": dataclasses.replace(geometry, flip=(geometry.flip[0] != x, geometry.flip[1] != y)),
    }
    if "masks" in example:
        changes["masks"] = tv_tensors.Mask(example["masks"].as_subclass(Tensor).flip(dims))
    return cast(Example, {**example, **changes})


def pad(example: Example, size: Size, value: tuple[int, int, int] = (0, 0, 0)) -> Example:
    """The example with pixels added at the right and the bottom.

    Args:
        example: Left as it is.
        size: New (h, w) in pixels, not smaller than the image.
        value: Red, green and blue of the new pixels.
    """
    height, width = example["image"].shape[-2:]
    image = torch.tensor(value, dtype=torch.uint8).expand(*size, 3).contiguous().permute(2, 0, 1)
    image[:, :height, :width] = example["image"].as_subclass(Tensor)
    geometry = example["geometry"]
    # undoing a flip starts from the far side, which has moved
    origin = (
        geometry.origin[0] - (size[1] - width) * geometry.flip[0],
        geometry.origin[1] - (size[0] - height) * geometry.flip[1],
    )
    boxes = example["boxes"].as_subclass(Tensor).clone()
    changes: dict[str, Any] = {
        "image": tv_tensors.Image(image),
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
        "geometry": dataclasses.replace(geometry, origin=origin),
    }
    if "masks" in example:
        masks = example["masks"].as_subclass(Tensor)
        padded = masks.new_zeros((len(masks), *size))
        padded[:, :height, :width] = masks
        changes["masks"] = tv_tensors.Mask(padded)
    return cast(Example, {**example, **changes})


def select(example: Example, index: Tensor) -> Example:
    """The example with some of its objects.

    Args:
        example: Left as it is.
        index: Positions of the objects, or a mask.
    """
    canvas = example["boxes"].canvas_size
    changes: dict[str, Any] = {
        "boxes": tv_tensors.BoundingBoxes(
            example["boxes"].as_subclass(Tensor)[index], format="XYXY", canvas_size=canvas
        ),
        "labels": example["labels"][index],
        "ignore": example["ignore"][index],
    }
    if "masks" in example:
        changes["masks"] = tv_tensors.Mask(example["masks"].as_subclass(Tensor)[index])
    return cast(Example, {**example, **changes})


def _resize_masks(masks: Tensor, size: Size) -> Tensor:
    if not len(masks):
        return masks.new_zeros((0, *size))
    # torchvision's own kernel for masks is half a pixel off (``nearest`` instead of ``nearest-exact``)
    scaled: Tensor = F.resize(masks.to(torch.uint8), list(size), InterpolationMode.NEAREST_EXACT)
    return scaled.to(masks.dtype)
