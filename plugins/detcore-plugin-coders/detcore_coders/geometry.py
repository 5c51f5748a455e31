"""What the coders of this package share."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from detcore.boxes import EPS


def center_and_size(boxes: Float[Tensor, "*S 4"]) -> tuple[Float[Tensor, "*S 2"], Float[Tensor, "*S 2"]]:
    """Centre (x, y) and size (w, h) of boxes xyxy."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) * 0.5, high - low


def fill_empty(sizes: Float[Tensor, "*S"], empty_size: float) -> Float[Tensor, "*S"]:
    """Sizes in which a side of no length counts as ``empty_size`` pixels; 0 leaves them as they are.

    Replaced before any division or logarithm, so that neither values nor gradients become infinite or NaN.
    """
    return torch.where(sizes > EPS, sizes, empty_size) if empty_size else sizes


def check_last_is_four(name: str, values: Tensor) -> None:
    """Checks that ``values`` are [..., 4].

    Raises:
        ValueError: They are not.
    """
    if values.dim() and values.shape[-1] == 4:
        return
    hint = "; class-wise codes [N, K * 4] are decoded as [N, K, 4] with priors [N, 1, 4]"
    raise ValueError(
        f"{name} should have shape [..., 4], got {list(values.shape)}{hint if name == 'codes' else ''}"
    )
