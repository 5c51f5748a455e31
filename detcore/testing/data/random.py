"""Random numbers that depend on a name and a seed only."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

Size = tuple[int, int]

SIZE: Size = (128, 160)


def seeded(case: str, known: Sequence[str], seed: int) -> torch.Generator:
    """A generator for one of the known cases.

    Raises:
        ValueError: The case is unknown.
    """
    if case not in known:
        raise ValueError(f"unknown case {case!r}; known: {', '.join(known)}")
    return torch.Generator().manual_seed(zlib.crc32(f"{case} {seed}".encode()))


def scattered(count: int, size: Size, generator: torch.Generator) -> Tensor:
    """Boxes anywhere in the image, at least 2 pixels on a side."""
    limits = torch.tensor([size[1], size[0]], dtype=torch.float32)
    extents = 2 + torch.rand(count, 2, generator=generator) ** 2 * (limits - 2)
    corners = torch.rand(count, 2, generator=generator) * (limits - extents)
    return torch.cat((corners, corners + extents), 1)
