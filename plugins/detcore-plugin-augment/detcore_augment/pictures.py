"""Moving pixels, masks and boxes about, and how the way back to the file changes by it."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from detcore.interfaces import Example
from detcore.structures import ImageGeometry
from detcore_augment.objects import masks_of, moved

Size = tuple[int, int]
#: Elements of masks that are moved at once.
_CHUNK = 1 << 24


def canvas(size: Size, color: tuple[int, int, int], device: torch.device) -> UInt8[Tensor, "3 H W"]:
    """A picture of one colour.

    Args:
        size: (h, w) in pixels.
        color: Red, green, blue.
        device: Where; on the meta device pictures have a size only.
    """
    return torch.tensor(color, dtype=torch.uint8, device=device)[:, None, None].repeat(1, *size)


def paste(onto: Tensor, picture: Tensor, x: int, y: int) -> None:
    """Writes a picture, or masks, into another: what reaches out of it is cut off.

    Args:
        onto: [..., H, W]; changed in place.
        picture: [..., h, w].
        x: Column of the picture's left edge; may be negative.
        y: Row of its upper edge; may be negative.
    """
    height, width = onto.shape[-2:]
    h, w = picture.shape[-2:]
    x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    if x1 < x2 and y1 < y2:
        onto[..., y1:y2, x1:x2] = picture[..., y1 - y : y2 - y, x1 - x : x2 - x]


def window(example: Example, x: int, y: int, size: Size, color: tuple[int, int, int] = (0, 0, 0)) -> Example:
    """The example as seen through a window, which may be larger. Boxes may reach out of it.

    Args:
        example: Left as it is.
        x: Column of the window's left edge; may be negative.
        y: Row of its upper edge; may be negative.
        size: (h, w) of the window, in pixels.
        color: Of what is outside of the picture.
    """
    image = canvas(size, color, example["image"].device)
    paste(image, example["image"].as_subclass(Tensor), -x, -y)
    masks = masks_of(example)
    if masks is not None:
        seen = masks.new_zeros((len(masks), *size))
        paste(seen, masks, -x, -y)
        masks = seen
    boxes = example["boxes"].as_subclass(Tensor) - torch.tensor([x, y, x, y])
    old = tuple(example["image"].shape[-2:])
    geometry = rescaled_geometry(example["geometry"], old, size, 1.0, (-float(x), -float(y)))
    return moved(example, image=image, boxes=boxes, masks=masks, geometry=geometry)


def rescaled_geometry(
    geometry: ImageGeometry, old: Size, new: Size, scale: float, shift: tuple[float, float]
) -> ImageGeometry:
    """The way back from a picture whose point p was at (p - shift) / scale in the old one.

    Args:
        geometry: Of the old picture.
        old: Its (h, w).
        new: (h, w) of the new one.
        scale: Factor from the old to the new one.
        shift: (x, y) of the old one's corner in the new one, in pixels.
    """
    origin = []
    for axis, (was, now) in enumerate(zip(old[::-1], new[::-1], strict=True)):
        # undoing a flip starts from the far side
        corner = scale * was + shift[axis] - now if geometry.flip[axis] else -shift[axis]
        origin.append(scale * geometry.origin[axis] + corner)
    x, y = geometry.scale
    return dataclasses.replace(geometry, scale=(scale * x, scale * y), origin=(origin[0], origin[1]))


def warp_image(
    image: UInt8[Tensor, "3 h w"], matrix: Float[Tensor, "3 3"], size: Size, color: tuple[int, int, int]
) -> UInt8[Tensor, "3 H W"]:
    """A picture under an affine map, interpolated between pixels.

    Args:
        image: The picture.
        matrix: Takes its points to those of the new one; a pixel's centre is at (0.5, 0.5) from its corner.
        size: (h, w) of the new one, in pixels.
        color: Of what is outside of the old one.
    """
    h, w = image.shape[-2:]
    height, width = size
    to_pixels = torch.tensor([[width / 2, 0, width / 2], [0, height / 2, height / 2], [0, 0, 1]])
    from_pixels = torch.tensor([[2 / w, 0, -1], [0, 2 / h, -1], [0, 0, 1]])
    inverse = torch.linalg.inv(matrix.double())
    theta = (from_pixels.double() @ inverse @ to_pixels.double())[:2].float()
    grid = F.affine_grid(theta[None].to(image.device), [1, 1, height, width], align_corners=False)
    pixels = torch.cat((image.float(), torch.ones((1, h, w), device=image.device)))
    sampled = F.grid_sample(pixels[None], grid, align_corners=False)[0]
    fill = torch.tensor(color, dtype=torch.float32, device=image.device)
    outside = (1 - sampled[3:]) * fill[:, None, None]
    return (sampled[:3] + outside).round().clamp(0, 255).to(torch.uint8)


def warp_masks(
    masks: Bool[Tensor, "n h w"], matrix: Float[Tensor, "3 3"], size: Size
) -> Bool[Tensor, "n H W"]:
    """Masks under an affine map, each pixel as the nearest of the old ones; arguments as :func:`warp_image`."""
    count, h, w = masks.shape
    height, width = size
    inverse = torch.linalg.inv(matrix.double())
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    points = inverse @ torch.stack((x.flatten(), y.flatten(), torch.ones(height * width))).double()
    column, row = points[0].floor().long(), points[1].floor().long()
    inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
    source = row.clamp(0, h - 1) * w + column.clamp(0, w - 1)
    warped = masks.new_zeros((count, height * width))
    step = max(1, _CHUNK // max(1, height * width))
    for start in range(0, count, step):
        chunk = masks[start : start + step].flatten(1)
        warped[start : start + step] = chunk[:, source] & inside
    return warped.view(count, height, width)


def warp_boxes(boxes: Float[Tensor, "n 4"], matrix: Float[Tensor, "3 3"]) -> Float[Tensor, "n 4"]:
    """The upright boxes around boxes under an affine map."""
    x1, y1, x2, y2 = boxes.double().unbind(-1)
    corners = torch.stack((torch.stack((x1, x2, x2, x1), -1), torch.stack((y1, y1, y2, y2), -1)), -1)
    corners = corners @ matrix[:2, :2].double().T + matrix[:2, 2].double()
    return torch.cat((corners.amin(1), corners.amax(1)), dim=-1).float()
