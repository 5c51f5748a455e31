"""Made-up images, features and priors, with the edge cases by name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detcore.structures import ApproxPriors, FeatureSpec, ImageBatch, PriorLevel, Priors
from detcore.testing.data.random import SIZE, Size, scattered, seeded

STRIDES = (8, 16, 32)
#: The names that :func:`make_priors` knows.
PRIOR_CASES = (
    "grid", "points", "anchors", "approxs", "invalid", "proposals", "none", "one", "duplicates", "degenerate",
)  # fmt: skip


def make_batch(*, batch: int = 2, size: Size = SIZE, uneven: bool = False, seed: int = 0) -> ImageBatch:
    """Random normalised images.

    Args:
        batch: Images B.
        size: (h, w) of the padded batch, in pixels.
        uneven: Whether all but the first image are smaller, with zeros in their padding.
        seed: Another seed, other numbers.
    """
    generator = seeded("batch", ("batch",), seed)
    pixels = torch.randn(batch, 3, *size, generator=generator)
    sizes = [(size[0] - 24 * (i % 3), size[1] - 16 * (i % 2)) if uneven else size for i in range(batch)]
    for image, (height, width) in zip(pixels, sizes, strict=True):
        image[:, height:], image[:, :, width:] = 0, 0
    return ImageBatch.of(pixels, sizes)


def make_priors(
    case: str = "grid",
    *,
    batch: int = 2,
    size: Size = SIZE,
    strides: Sequence[int] = STRIDES,
    scale: float = 4.0,
    seed: int = 0,
) -> Priors:
    """Priors of a pyramid over images of one size.

    The cases: ``grid``: one square of ``scale`` strides per cell, shared by the batch; ``points``: the cells'
    centres; ``anchors``: three shapes per cell; ``approxs``: the grid, with these as approximating boxes;
    ``invalid``: a grid where half of the priors, others in each image, are not valid; ``proposals``: 60 boxes
    per image, no grid; ``none`` and ``one``: so many; ``duplicates``: every prior of a grid twice;
    ``degenerate``: proposals, a third without width, height or both.

    Args:
        case: One of :data:`PRIOR_CASES`.
        batch: Images B, where priors differ between images.
        size: (h, w) of the images, in pixels.
        strides: Pixels per cell, by level.
        scale: Side of the boxes in strides.
        seed: For what is random: ``invalid``, ``proposals``, ``degenerate``.

    Raises:
        ValueError: The case is unknown.
    """
    generator = seeded(case, PRIOR_CASES, seed)
    if case in ("proposals", "degenerate"):
        boxes = scattered(batch * 60, size, generator).reshape(batch, 60, 4)
        if case == "degenerate":
            boxes[:, 0:10, 2] = boxes[:, 0:10, 0]
            boxes[:, 5:20, 3] = boxes[:, 5:20, 1]
        return Priors(boxes, torch.ones(60, 2))
    shapes = {"points": ((0.0, 0.0),), "anchors": ((1.0, 1.0), (1.5, 0.75), (0.75, 1.5))}.get(
        case, ((1.0, 1.0),)
    )
    shapes = shapes * 2 if case == "duplicates" else shapes
    priors = _grid(size, strides, torch.tensor(shapes) * scale)
    if case in ("none", "one"):
        count = int(case == "one")
        return Priors(priors.boxes[:count], priors.strides[:count])
    if case == "approxs":
        approxs = make_priors("anchors", size=size, strides=strides, scale=scale).boxes.reshape(-1, 3, 4)
        return ApproxPriors(priors.boxes, priors.strides, priors.levels, approxs=approxs)
    if case == "invalid":
        return priors.replace(valid=torch.rand(batch, len(priors), generator=generator) < 0.5)
    return priors


def make_pyramid(
    *, batch: int = 2, size: Size = SIZE, channels: int = 8, strides: Sequence[int] = STRIDES, seed: int = 0
) -> tuple[tuple[Tensor, ...], tuple[FeatureSpec, ...]]:
    """Random features, and what describes them: what a neck gives to a head.

    Args:
        batch: Images B.
        size: (h, w) of the images, in pixels; a level has ceil(size / stride) cells.
        channels: Channels of every level.
        strides: Pixels per cell, by level.
        seed: Another seed, other numbers.
    """
    generator = seeded("pyramid", ("pyramid",), seed)
    shapes = [(batch, channels, -(-size[0] // s), -(-size[1] // s)) for s in strides]
    features = tuple(torch.randn(shape, generator=generator) for shape in shapes)
    return features, tuple(FeatureSpec(channels, s) for s in strides)


def _grid(size: Size, strides: Sequence[int], shapes: Tensor) -> Priors:
    """Boxes of the given (w, h) in strides around the centres of all cells, in the usual order."""
    boxes, rows, levels = [], [], []
    for stride in strides:
        h, w = -(-size[0] // stride), -(-size[1] // stride)
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        centres = (torch.stack((x, y), -1).reshape(-1, 1, 2) + 0.5) * stride
        half = shapes * stride / 2
        boxes.append(torch.cat((centres - half, centres + half), -1).reshape(-1, 4))
        rows.append(torch.full((len(boxes[-1]), 2), float(stride)))
        levels.append(PriorLevel(h, w, len(shapes), (float(stride), float(stride))))
    return Priors(torch.cat(boxes), torch.cat(rows), tuple(levels))
