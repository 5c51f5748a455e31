"""Made-up ground truth, with the edge cases by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from detcore.masks import Masks
from detcore.structures import Targets
from detcore.testing.data.random import SIZE, Size, scattered, seeded

Padding = Literal["zeros", "boxes", "nan"]

#: Smallest image, in pixels, that has room for every case.
LEAST_SIZE = 64


class _Image(NamedTuple):
    """Ground truth of one image before padding."""

    boxes: Tensor
    ignore: Tensor


def _plain(boxes: Tensor) -> _Image:
    return _Image(boxes, torch.zeros(len(boxes), dtype=torch.bool))


def _rows(*rows: Sequence[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def _typical(size: Size, generator: torch.Generator, image: int) -> _Image:
    boxes = _rows([8, 8, 40, 40], [30, 20, 70, 84]) if image % 2 == 0 else _rows([16, 8, 120, 80])
    h, w = size
    return _plain(boxes * torch.tensor([w / 128, h / 96, w / 128, h / 96]))


def _none_in_one(size: Size, generator: torch.Generator, image: int) -> _Image:
    return _typical(size, generator, 0) if image % 2 == 0 else _plain(_rows())


def _separate(size: Size, generator: torch.Generator, image: int) -> _Image:
    # one in the middle of each quarter of the image, each of another size
    corner = torch.tensor([[0.0, 0], [1, 0], [0, 1], [1, 1]]) * 0.5 + 0.25
    centre = (corner + torch.rand(4, 2, generator=generator) * 0.06 - 0.03) * torch.tensor([size[1], size[0]])
    half = torch.tensor([[9.3], [11.1], [13.7], [14.9]]) + torch.rand(4, 2, generator=generator)
    return _plain(torch.cat((centre - half, centre + half), 1))


def _mixed(size: Size, generator: torch.Generator, image: int) -> _Image:
    return _plain(scattered((3, 0, 1, 7)[image % 4], size, generator))


def _some_ignored(size: Size, generator: torch.Generator, image: int) -> _Image:
    return _Image(scattered(6, size, generator), torch.arange(6) % 3 == image % 3)


def _crowd(size: Size, generator: torch.Generator, image: int) -> _Image:
    boxes = scattered(3, size, generator)
    region = torch.cat((boxes[:, :2].amin(0), boxes[:, 2:].amax(0)))
    return _Image(torch.cat((region[None], boxes)), torch.tensor([True, False, False, False]))


def _crowded(size: Size, generator: torch.Generator, image: int) -> _Image:
    shift = torch.rand(20, 1, 2, generator=generator) * 8
    box = torch.tensor([[12.0, 12.0], [44.0, 52.0]])
    return _plain((box + shift).flatten(1))


def _duplicates(size: Size, generator: torch.Generator, image: int) -> _Image:
    return _plain(scattered(2, size, generator).repeat(3, 1))


def _ties(size: Size, generator: torch.Generator, image: int) -> _Image:
    # Centres of stride 8 lie at 8 i + 4: the first box is as near to four of them; the others, mirror images
    # of each other about (44, 44), are as near to that one. Whole numbers: overlaps are exactly equal.
    return _plain(_rows([16, 16, 32, 32], [32, 36, 48, 52], [40, 36, 56, 52]))


def _degenerate(size: Size, generator: torch.Generator, image: int) -> _Image:
    flat = _rows([20, 10, 20, 50], [10, 20, 50, 20], [30, 30, 30, 30], [0, 0, 0, 0])
    return _plain(torch.cat((flat, scattered(1, size, generator))))


def _tiny(size: Size, generator: torch.Generator, image: int) -> _Image:
    corners = torch.rand(4, 2, generator=generator) * 60
    return _plain(torch.cat((corners, corners + torch.tensor([[1.0], [0.5], [0.1], [1e-3]])), 1))


def _whole(size: Size, generator: torch.Generator, image: int) -> _Image:
    return _plain(_rows([0, 0, size[1], size[0]]))


def _outside(size: Size, generator: torch.Generator, image: int) -> _Image:
    h, w = size
    return _plain(_rows([-30, -20, 24, 32], [w - 8, h - 8, w + 40, h + 40], [w + 200, 10, w + 260, 60]))


def _all_ignored(size: Size, generator: torch.Generator, image: int) -> _Image:
    return _Image(scattered(4, size, generator), torch.ones(4, dtype=torch.bool))


def _count(count: int) -> Callable[[Size, torch.Generator, int], _Image]:
    return lambda size, generator, image: _plain(scattered(count, size, generator))


_TARGETS: dict[str, Callable[[Size, torch.Generator, int], _Image]] = {
    "none": _count(0),
    "one": _count(1),
    "many": _count(50),
    "thousands": _count(5000),
    "typical": _typical,
    "separate": _separate,
    "none_in_one": _none_in_one,
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

    The cases: ``none``, ``one``, ``many`` (50) and ``thousands`` (5000) objects per image; ``typical``: two
    and one in turn, always the same; ``separate``: four that do not touch; ``none_in_one``: none in every
    second image; ``mixed``: 3, 0, 1, 7 in turn; ``padded``: the same with four more rows and garbage in the
    padding; ``all_ignored``; ``some_ignored``; ``crowd``: an ignored region over normal objects; ``crowded``:
    twenty that overlap heavily; ``duplicates``: each object three times, with different labels; ``ties``:
    priors of stride 8 with exactly equal overlaps; ``degenerate``: without width, height or both; ``tiny``:
    below a pixel; ``whole``: the image itself; ``outside``: partly or wholly beyond the image.

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
    generator = seeded("mixed" if case == "padded" else case, TARGET_CASES, seed)
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
        garbage = scattered(count * shape[1], SIZE, generator).reshape(*shape, 4)
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


def _extended(table: Tensor, rows: int) -> Tensor:
    return torch.cat((table, table.new_zeros((len(table), rows, *table.shape[2:]))), 1)


def _ellipses(boxes: Tensor, size: Size) -> Tensor:
    y = torch.arange(size[0])[:, None] + 0.5
    x = torch.arange(size[1]) + 0.5
    x1, y1, x2, y2 = boxes[:, :, None, None].unbind(1)
    return (2 * x - x1 - x2).square() * (y2 - y1) ** 2 + (2 * y - y1 - y2).square() * (x2 - x1) ** 2 < (
        (x2 - x1) * (y2 - y1)
    ).square() * ((x2 > x1) & (y2 > y1))
