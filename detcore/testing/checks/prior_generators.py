"""Checks of prior generators.

Level sizes follow ``strides``, as a network's would.
"""

from __future__ import annotations

from typing import Any

import torch

from detcore.interfaces import PriorGenerator
from detcore.structures import ImageBatch, Priors
from detcore.testing.checking import Trial, check, probe
from detcore.testing.data import Size
from detcore.testing.errors import ConformanceError
from detcore.testing.subject import given

SIZES: dict[str, Size] = {"usual": (128, 160), "square": (64, 64), "narrow": (32, 256), "one pixel": (1, 1)}


def _strides(generator: PriorGenerator) -> list[tuple[float, float]]:
    """(x, y) by level, as the constructor was given them."""
    return [s if isinstance(s, tuple) else (s, s) for s in given(generator, "strides")]


def _levels(generator: PriorGenerator, size: Size) -> list[Size]:
    h, w = size
    return [(int(-(-h // y)), int(-(-w // x))) for x, y in _strides(generator)]


def _batch(*sizes: Size) -> ImageBatch:
    """Images whose pixels nobody looks at, one of the full size and others within it."""
    h, w = (max(size[i] for size in sizes) for i in (0, 1))
    return ImageBatch.of(torch.zeros(len(sizes), 3, h, w), list(sizes), list(sizes))


def _run(trial: Trial, generator: PriorGenerator, *sizes: Size) -> Priors:
    batch = _batch(*sizes)
    levels = _levels(generator, (batch.pixels.shape[2], batch.pixels.shape[3]))
    trial.note(f"images of {', '.join(map(str, sizes))}, levels of {levels}")
    return generator(levels, batch)


@probe(PriorGenerator)
def generate_once(generator: PriorGenerator, trial: Trial) -> Any:
    """The priors of two images of different size."""
    return _run(trial, generator, (128, 160), (96, 96))


@check(PriorGenerator, cases=SIZES)
def priors_are_counted(trial: Trial) -> None:
    """There are h * w * num_per_cell of them in each level, and ``levels`` says so."""
    generator = trial.component()
    size = SIZES[trial.case]
    priors = _run(trial, generator, size)
    shapes = [(level.h, level.w, level.per_cell) for level in priors.levels]
    wanted = [(h, w, a) for (h, w), a in zip(_levels(generator, size), generator.num_per_cell, strict=True)]
    trial.require(shapes == wanted, f"levels are {shapes}, not {wanted}")
    count = sum(h * w * a for h, w, a in wanted)
    trial.require(len(priors) == count, f"there are {len(priors)} priors, not {count}")
    trial.require(priors.strides.shape == (count, 2), f"strides have shape {list(priors.strides.shape)}")
    trial.require(priors.boxes.shape[-1] == 4, f"boxes have shape {list(priors.boxes.shape)}")
    trial.finite(priors.boxes, "a box")
    trial.require(priors.boxes[..., 2:] >= priors.boxes[..., :2], "a box has x2 < x1 or y2 < y1")


@check(PriorGenerator, cases=("usual", "narrow"))
def priors_are_in_order(trial: Trial) -> None:
    """They are ordered by level, then row-major over y and x, then within the cell."""
    priors = _run(trial, trial.component(), SIZES[trial.case])
    first = 0
    for number, level in enumerate(priors.levels):
        boxes = priors.boxes[..., first : first + level.count, :]
        grid = boxes.reshape(level.h, level.w, level.per_cell, 4)
        y, x = torch.meshgrid(torch.arange(level.h), torch.arange(level.w), indexing="ij")
        shift = torch.stack((x * level.stride[0], y * level.stride[1]), -1).repeat(1, 1, 2)[:, :, None]
        trial.same(grid, grid[:1, :1] + shift, f"level {number}: boxes by (y, x, prior)", atol=1e-2)
        first += level.count


@check(PriorGenerator)
def priors_know_their_strides(trial: Trial) -> None:
    """Each prior has the stride of its level, and the levels have those that were given."""
    generator = trial.component()
    priors = _run(trial, generator, SIZES["usual"])
    given_strides = [(float(x), float(y)) for x, y in _strides(generator)]
    trial.require([level.stride for level in priors.levels] == given_strides, "levels have other strides")
    rows = [
        torch.tensor(s).expand(level.count, 2) for s, level in zip(given_strides, priors.levels, strict=True)
    ]
    trial.same(priors.strides, torch.cat(rows).to(priors.strides.dtype), "strides")


@check(PriorGenerator)
def priors_of_a_cell_are_always_the_same(trial: Trial) -> None:
    """A cell's priors do not depend on the size of the map."""
    generator = trial.component()
    small, large = (_run(trial, generator, SIZES[name]) for name in ("square", "usual"))
    first = [0, 0]
    for one, two in zip(small.levels, large.levels, strict=True):
        corner = []
        for which, (priors, level) in enumerate(((small, one), (large, two))):
            boxes = priors.boxes[..., first[which] : first[which] + level.count, :]
            corner.append(boxes.reshape(level.h, level.w, level.per_cell, 4)[: one.h, : one.w])
            first[which] += level.count
        trial.same(corner[0], corner[1], "boxes on a smaller map", atol=1e-2)


@check(PriorGenerator)
def priors_in_the_padding_are_invalid(trial: Trial) -> None:
    """In a batch, priors of cells beyond an image's padded size are not valid, all others are."""
    generator = trial.component()
    sizes = ((128, 160), (96, 64))
    priors = _run(trial, generator, *sizes)
    if priors.valid is None:
        raise ConformanceError("valid is None though an image is smaller than the batch")
    first = 0
    for number, level in enumerate(priors.levels):
        valid = priors.valid[:, first : first + level.count].reshape(2, level.h, level.w, level.per_cell)
        for image, (h, w) in enumerate(sizes):
            rows = torch.arange(level.h)[:, None] * level.stride[1] < h
            columns = torch.arange(level.w) * level.stride[0] < w
            wanted = (rows & columns)[..., None].expand_as(valid[image])
            trial.same(valid[image], wanted, f"valid of image {image}, level {number}")
        first += level.count


@check(PriorGenerator, compares=True)
def priors_of_images_are_independent(trial: Trial) -> None:
    """An image's priors, and which of them are valid, are the same alone and in a batch."""
    generator = trial.component()
    both = _run(trial, generator, (128, 160), (128, 160))
    alone = _run(trial, generator, (128, 160))
    for index in range(2):
        boxes = both.boxes if both.boxes.dim() == 2 else both.boxes[index]
        trial.same(boxes, alone.boxes if alone.boxes.dim() == 2 else alone.boxes[0], "boxes in the batch")
        valid = torch.ones(len(both), dtype=torch.bool) if both.valid is None else both.valid[index]
        single = torch.ones(len(both), dtype=torch.bool) if alone.valid is None else alone.valid[0]
        trial.same(valid, single, f"valid of image {index} in the batch")


@check(PriorGenerator)
def priors_need_all_levels(trial: Trial) -> None:
    """Another number of levels than strides is refused with a ValueError."""
    generator = trial.component()
    levels = [*_levels(generator, (128, 160)), (1, 1)]
    for wrong in (levels, levels[:-2]):
        try:
            generator(wrong, _batch((128, 160)))
        except ValueError:
            continue
        trial.fail(f"{len(wrong)} levels are accepted, but there are {len(levels) - 1} strides")
