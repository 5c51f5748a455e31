"""Box geometry that torchvision.ops lacks: batch dimensions, aligned pairs, intersection over foreground.

Boxes are xyxy in pixels. Every function broadcasts over leading dimensions and accepts zero rows.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

#: Smallest divisor of an overlap; keeps degenerate boxes at IoU 0 instead of NaN.
EPS = 1e-6

OverlapMode = Literal["iou", "iof"]


def area(boxes: Float[Tensor, "*S 4"]) -> Float[Tensor, "*S"]:
    """Width times height; negative extents are not clamped."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def pairwise_overlap(
    a: Float[Tensor, "*S N 4"], b: Float[Tensor, "*S M 4"], mode: OverlapMode = "iou", eps: float = EPS
) -> Float[Tensor, "*S N M"]:
    """Overlap of every box of ``a`` with every box of ``b``.

    Args:
        a: N boxes.
        b: M boxes.
        mode: "iou" divides by the union, "iof" by the area of ``a`` (intersection over foreground).
        eps: Smallest divisor.
    """
    return aligned_overlap(a[..., :, None, :], b[..., None, :, :], mode, eps)


def aligned_overlap(
    a: Float[Tensor, "*S 4"], b: Float[Tensor, "*S 4"], mode: OverlapMode = "iou", eps: float = EPS
) -> Float[Tensor, "*S"]:
    """Overlap of each box of ``a`` with the box of ``b`` in the same place; see :func:`pairwise_overlap`."""
    intersection = aligned_intersection(a, b)
    divisor = area(a) if mode == "iof" else area(a) + area(b) - intersection
    return intersection / divisor.clamp(min=eps)


def aligned_intersection(a: Float[Tensor, "*S 4"], b: Float[Tensor, "*S 4"]) -> Float[Tensor, "*S"]:
    """Area of the intersection of each box of ``a`` with the box of ``b`` in the same place."""
    width = torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])
    height = torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])
    # relu rather than clamp, whose gradient at 0 differs between releases of torch: touching boxes have none
    return width.relu() * height.relu()


def clip(boxes: Float[Tensor, "*S 4"], sizes: Int[Tensor, "*B 2"]) -> Float[Tensor, "*S 4"]:
    """Boxes cut off at (h, w) = ``sizes``, whose leading dimensions broadcast against those of ``boxes``.

    ``sizes`` [B, 2] with boxes [B, N, 4] means one size per image.
    """
    while 1 < sizes.dim() < boxes.dim():
        sizes = sizes.unsqueeze(-2)
    limits = sizes.flip(-1).to(boxes.dtype)
    return torch.minimum(boxes.clamp(min=0), torch.cat((limits, limits), dim=-1))


def inside_flags(
    priors: Float[Tensor, "*P N 4"], sizes: Int[Tensor, "B 2"], allowed_border: float = 0
) -> Bool[Tensor, "B N"]:
    """Which priors lie inside each image, up to a border.

    Args:
        priors: [N, 4] shared by the images, or [B, N, 4].
        sizes: (h, w) of each image.
        allowed_border: Pixels that a prior may reach beyond the image, exclusively at the right and bottom;
            any number below 0 allows every prior.
    """
    if allowed_border < 0:
        return torch.ones((len(sizes), priors.shape[-2]), dtype=torch.bool, device=priors.device)
    height, width = sizes.to(priors.dtype).unsqueeze(-1).unbind(1)
    x1, y1, x2, y2 = priors.unbind(-1)
    above = (x1 >= -allowed_border) & (y1 >= -allowed_border)
    return above & (x2 < width + allowed_border) & (y2 < height + allowed_border)


def contains(boxes: Float[Tensor, "*S M 4"], points: Float[Tensor, "*S N 2"]) -> Tensor:
    """Whether each point lies strictly inside each box: bool [..., N, M]."""
    x, y = points[..., :, None, 0], points[..., :, None, 1]
    x1, y1, x2, y2 = boxes[..., None, :, :].unbind(-1)
    return torch.stack((x - x1, y - y1, x2 - x, y2 - y)).amin(0) > 0
