"""Made-up data for tests: ground truth, priors and feature pyramids, with the edge cases by name.

Everything is reproducible: the same name, arguments and seed give the same numbers on every machine, whatever
else was made before. Sizes are (h, w); boxes are xyxy in pixels.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from detcore.masks import Masks
from detcore.structures import FeatureSpec, ImageBatch, PriorLevel, Priors, Targets

Size = tuple[int, int]
Padding = Literal["zeros", "boxes", "nan"]

SIZE: Size = (128, 160)
STRIDES = (8, 16, 32)
#: Smallest image, in pixels, that has room for every case.
LEAST_SIZE = 64


class _Image(NamedTuple):
    """Ground truth of one image before padding."""

    boxes: Tensor
    ignore: Tensor


def _plain(boxes: Tensor) -> _Image:
    return _Image(boxes, torch.zeros(len(boxes), dtype=torch.bool))


def _scattered(count: int, size: Size, generator: torch.Generator) -> Tensor:
    """Boxes anywhere in the image, at least 2 pixels on a side."""
    limits = torch.tensor([size[1], size[0]], dtype=torch.float32)
    extents = 2 + torch.rand(count, 2, generator=generator) ** 2 * (limits - 2)
    corners = torch.rand(count, 2, generator=generator) * (limits - extents)
    return torch.cat((corners, corners + extents), 1)


def _rows(*rows: Sequence[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def _mixed(size: Size, generator: torch.Generator, image: int) -> _Image:
    return _plain(_scattered((3, 0, 1, 7)[image % 4], size, generator))


def _some_ignored(size: Size, generator: torch.Generator, image: int) -> _Image:
    return _Image(_scattered(6, size, generator), torch.arange(6) % 3 == image % 3)


def _crowd(size: Size, generator: torch.Generator, image: int) -> _Image:
    boxes = _scattered(3, size, generator)
    region = torch.cat((boxes[:, :2].amin(0), boxes[:, 2:].amax(0)))
    return _Image(torch.cat((region[None], boxes)), torch.tensor([True, False, False, False]))


def _crowded(size: Size, generator: torch.Generator, image: int) -> _Image:
    shift = torch.rand(20, 1, 2, generator=generator) * 8
    box = torch.tensor([[12.0, 12.0], [44.0, 52.0]])
    return _plain((box + shift).flatten(1))


def _duplicates(size: Size, generator: torch.Generator, image: int) -> _Image:
    return _plain(_scattered(2, size, generator).repeat(3, 1))


def _ties(size: Size, generator: torch.Generator, image: int) -> _Image:
    # Centres of stride 8 lie at 8 i + 4: the first box is as near to four of them; the others, mirror images
    # of each other about (44, 44), are as near to that one. Whole numbers: overlaps are exactly equal.
    return _plain(_rows([16, 16, 32, 32], [32, 36, 48, 52], [40, 36, 56, 52]))


def _degenerate(size: Size, generator: torch.Generator, image: int) -> _Image:
    flat = _rows([20, 10, 20, 50], [10, 20, 50, 20], [30, 30, 30, 30], [0, 0, 0, 0])
    return _plain(torch.cat((flat, _scattered(1, size, generator))))


def _tiny(size: Size, generator: torch.Generator, image: int) -> _Image:
    corners = torch.rand(4, 2, generator=generator) * 60
    return _plain(torch.cat((corners, corners + torch.tensor([[1.0], [0.5], [0.1], [1e-3]])), 1))


def _whole(size: Size, generator: torch.Generator, image: int) -> _Image:
    return _plain(_rows([0, 0, size[1], size[0]]))


def _outside(size: Size, generator: torch.Generator, image: int) -> _Image:
    h, w = size
    return _plain(_rows([-30, -20, 24, 32], [w - 8, h - 8, w + 40, h + 40], [w + 200, 10, w + 260, 60]))


def _all_ignored(size: Size, generator: torch.Generator, image: int) -> _Image:
    return _Image(_scattered(4, size, generator), torch.ones(4, dtype=torch.bool))


def _count(count: int) -> Callable[[Size, torch.Generator, int], _Image]:
    return lambda size, generator, image: _plain(_scattered(count, size, generator))


_TARGETS: dict[str, Callable[[Size, torch.Generator, int], _Image]] = {
    "none": _count(0),
    "one": _count(1),
    "many": _count(50),
    "thousands": _count(5000),
    "mixed": _mixed,
    "padded": _mixed,
    "all_ignored": _all_ignored,
    "some_ignored": _some_ignored,
    "crowd": _crowd,
    "crowded": _crowded,
    "duplicates": _duplicates,
    "ties": _ties,
    "degenerate": _degenerate,
    "tiny": _tiny,
    "whole": _whole,
    "outside": _outside,
}
#: The names that :func:`make_targets` knows.
TARGET_CASES = tuple(_TARGETS)
#: The names that :func:`make_priors` knows.
PRIOR_CASES = ("grid", "points", "anchors", "invalid", "proposals", "none", "one", "duplicates", "degenerate")


def make_targets(
    case: str = "mixed",
    *,
    batch: int = 2,
    size: Size = SIZE,
    num_classes: int = 3,
    masks: bool = False,
    extra_rows: int | None = None,
    padding: Padding | None = None,
    seed: int = 0,
) -> Targets:
    """Ground truth of a batch.

    The cases: ``none``, ``one``, ``many`` (50) and ``thousands`` (5000) objects per image; ``mixed``: 3, 0,
    1, 7 in turn; ``padded``: the same with four more rows and garbage in the padding; ``all_ignored``;
    ``some_ignored``; ``crowd``: an ignored region over normal objects; ``crowded``: twenty that overlap
    heavily; ``duplicates``: each object three times, with different labels; ``ties``: priors of stride 8 with
    exactly equal overlaps; ``degenerate``: without width, height or both; ``tiny``: below a pixel; ``whole``:
    the image itself; ``outside``: partly or wholly beyond the image.

    Args:
        case: One of :data:`TARGET_CASES`.
        batch: Images B.
        size: (h, w) of the images, at least 64 x 64.
        num_classes: K; labels go round 0..K-1.
        masks: Whether to add masks: the ellipse in each box, empty where that covers no pixel's centre.
        extra_rows: Padded rows beyond the longest image's; 4 for ``padded``, else 0.
        padding: What the padded rows hold, see :func:`pad_targets`; "boxes" for ``padded``, else "zeros".
        seed: Another seed, other numbers.

    Raises:
        ValueError: The case is unknown, or the image too small.
    """
    generator = _generator("mixed" if case == "padded" else case, TARGET_CASES, seed)
    if min(size) < LEAST_SIZE:
        raise ValueError(f"size should be at least {LEAST_SIZE} x {LEAST_SIZE}, got {size}")
    images = [_TARGETS[case](size, generator, i) for i in range(batch)]
    examples = []
    for i, (boxes, ignore) in enumerate(images):
        example = {"boxes": boxes, "labels": (torch.arange(len(boxes)) + i) % num_classes, "ignore": ignore}
        examples.append({**example, "masks": _ellipses(boxes, size)} if masks else example)
    padded = case == "padded"
    return pad_targets(
        Targets.stack(examples),
        (4 if padded else 0) if extra_rows is None else extra_rows,
        ("boxes" if padded else "zeros") if padding is None else padding,
        num_classes=num_classes,
        seed=seed,
    )


def pad_targets(
    targets: Targets, extra_rows: int, padding: Padding = "zeros", *, num_classes: int = 3, seed: int = 0
) -> Targets:
    """The same ground truth with more padded rows; whatever these hold must change no result.

    Args:
        targets: Ground truth, with M rows.
        extra_rows: Rows to add.
        padding: What all padded rows hold: "zeros" as :meth:`Targets.stack` leaves them; "boxes": plausible
            boxes, labels and ignore flags; "nan": the same with boxes that are no numbers, for what must be
            robust even against those.
        num_classes: K, for the labels of "boxes" and "nan".
        seed: For "boxes" and "nan".
    """
    count, rows = targets.valid.shape
    valid = _extended(targets.valid, extra_rows)
    boxes, labels, ignore = (
        _extended(t, extra_rows) for t in (targets.boxes, targets.labels, targets.ignore)
    )
    if padding != "zeros":
        generator = torch.Generator().manual_seed(seed)
        shape = (count, rows + extra_rows)
        garbage = _scattered(count * shape[1], SIZE, generator).reshape(*shape, 4)
        garbage = torch.full_like(garbage, torch.nan) if padding == "nan" else garbage
        boxes = torch.where(valid[..., None], boxes, garbage.to(boxes))
        labels = torch.where(valid, labels, torch.randint(num_classes, shape, generator=generator).to(labels))
        ignore = torch.where(valid, ignore, (torch.rand(shape, generator=generator) < 0.3).to(ignore))
    masks = targets.masks
    if masks is not None:
        fields = {
            name: _extended(getattr(masks, name), extra_rows) for name in ("offsets", "sizes", "origins")
        }
        masks = Masks(values=masks.values, image_size=masks.image_size, **fields)
    return Targets(boxes, labels, valid, ignore, masks, targets.semantic)


def make_batch(*, batch: int = 2, size: Size = SIZE, uneven: bool = False, seed: int = 0) -> ImageBatch:
    """Random normalised images.

    Args:
        batch: Images B.
        size: (h, w) of the padded batch, in pixels.
        uneven: Whether all but the first image are smaller, with zeros in their padding.
        seed: Another seed, other numbers.
    """
    generator = _generator("batch", ("batch",), seed)
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
    centres; ``anchors``: three shapes per cell; ``invalid``: a grid where half of the priors, others in each
    image, are not valid; ``proposals``: 60 boxes per image, no grid; ``none`` and ``one``: so many;
    ``duplicates``: every prior of a grid twice; ``degenerate``: proposals, a third without width, height or
    both.

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
    generator = _generator(case, PRIOR_CASES, seed)
    if case in ("proposals", "degenerate"):
        boxes = _scattered(batch * 60, size, generator).reshape(batch, 60, 4)
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
    generator = _generator("pyramid", ("pyramid",), seed)
    shapes = [(batch, channels, -(-size[0] // s), -(-size[1] // s)) for s in strides]
    features = tuple(torch.randn(shape, generator=generator) for shape in shapes)
    return features, tuple(FeatureSpec(channels, s) for s in strides)


def _generator(case: str, known: Sequence[str], seed: int) -> torch.Generator:
    if case not in known:
        raise ValueError(f"unknown case {case!r}; known: {', '.join(known)}")
    return torch.Generator().manual_seed(zlib.crc32(f"{case} {seed}".encode()))


def _extended(table: Tensor, rows: int) -> Tensor:
    return torch.cat((table, table.new_zeros((len(table), rows, *table.shape[2:]))), 1)


def _ellipses(boxes: Tensor, size: Size) -> Tensor:
    y = torch.arange(size[0])[:, None] + 0.5
    x = torch.arange(size[1]) + 0.5
    x1, y1, x2, y2 = boxes[:, :, None, None].unbind(1)
    return (2 * x - x1 - x2).square() * (y2 - y1) ** 2 + (2 * y - y1 - y2).square() * (x2 - x1) ** 2 < (
        (x2 - x1) * (y2 - y1)
    ).square() * ((x2 > x1) & (y2 > y1))


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
