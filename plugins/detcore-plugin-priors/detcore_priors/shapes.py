"""What generators of anchors share beside the grid: sides, boxes around a point, and settings by level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from detcore_priors.anchors import AnchorGenerator
from detcore_priors.grid import BaseBox


def anchor_sides(generator: AnchorGenerator) -> tuple[tuple[Float[Tensor, "A"], Float[Tensor, "A"]], ...]:
    """Widths and heights in pixels of a generator's anchors, by level; its centres should be 0 for exact ones."""
    return tuple((b[:, 2] - b[:, 0], b[:, 3] - b[:, 1]) for b in generator.base_anchors)


def around(center: tuple[float, float], widths: Float[Tensor, "A"], heights: Float[Tensor, "A"]) -> Tensor:
    """Boxes [A, 4] of these sides around a point (x, y), in float32."""
    half = torch.stack((widths, heights), dim=-1) * 0.5
    middle = torch.tensor(center, dtype=torch.float32, device="cpu")
    return torch.cat((middle - half, middle + half), dim=-1)


def as_base(boxes: Float[Tensor, "A 4"]) -> tuple[BaseBox, ...]:
    """The boxes of a cell as plain numbers."""
    return tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in boxes.tolist())


def base_tensors(base: Sequence[Sequence[BaseBox]]) -> tuple[Float[Tensor, "A 4"], ...]:
    """The boxes of each level's first cell as new tensors on the CPU."""
    return tuple(torch.tensor(boxes, dtype=torch.float32, device="cpu").reshape(-1, 4) for boxes in base)


def check_count(name: str, values: Sequence[object] | None, strides: Sequence[tuple[int, int]]) -> None:
    """Checks that a setting has one entry per level; None passes.

    Raises:
        ValueError: It has not.
    """
    if values is not None and len(values) != len(strides):
        raise ValueError(
            f"{name} should have one entry per level; got {len(values)} for {len(strides)} strides "
            f"{list(strides)}"
        )
