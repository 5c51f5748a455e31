"""The distance of boxes as Gaussians."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def as_gaussian(boxes: Float[Tensor, "*S 4"]) -> Float[Tensor, "*S 4"]:
    """Mean and standard deviations of the Gaussian that stands for a box: centre, half width, half height.

    Args:
        boxes: xyxy, in pixels.
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, (high - low) / 2), dim=-1)


def closeness(squared: Float[Tensor, "*S"], size: float) -> Float[Tensor, "*S"]:
    """exp(-W / size) of a squared distance: 1 for equal boxes, towards 0 for those far apart.

    Args:
        squared: Squares of the 2-Wasserstein distance W, in square pixels.
        size: The dataset's typical size of an object, in pixels.
    """
    # the root has no finite derivative at 0
    tiny = torch.finfo(squared.dtype).tiny
    distance = torch.where(squared > 0, squared, tiny).sqrt()
    return (-distance / size).exp()
