"""A training step: forward, backward and optimizer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bench.row import Row
from bench.rows import models, scene

_BATCH, SIZE = (16, (800, 1344)) if torch.cuda.is_available() else (2, (480, 640))
_WHY = (
    "Five sixths of a step are convolutions and their gradients, by the same kernels in both libraries. What is left "
    "to gain is in the gradients of 3x3 convolutions on large maps, which reach two thirds of the peak."
)


def prepare(
    build: Callable[[], nn.Module], batch: int, size: tuple[int, int], bfloat16: bool, *, as_floats: bool
) -> Callable[[], Any]:
    """A step on the same images and boxes."""
    model = build().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    images = [scene.image(size, seed) for seed in range(batch)]
    if as_floats:
        images = [image / 255 for image in images]
    targets = [
        {"boxes": scene.boxes(8, size, seed), "labels": scene.labels(8, seed)} for seed in range(batch)
    ]

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(scene.device().type, torch.bfloat16, enabled=bfloat16):
            losses = model(images, targets)
        sum(losses.values()).backward()
        optimizer.step()

    return step


def row(name: str, batch: int, size: tuple[int, int], bfloat16: bool = False, slow: bool = False) -> Row:
    """The step of one detector in both libraries."""
    ours, theirs = {
        "RetinaNet": (models.detcore_retinanet, models.torchvision_retinanet),
        "Faster R-CNN": (models.detcore_faster_rcnn, models.torchvision_faster_rcnn),
    }[name]
    options = (batch, size, bfloat16)
    return Row(
        f"training step, {name} R50, {batch} x {size[0]} x {size[1]}, {'bfloat16' if bfloat16 else 'float32'}",
        {
            "detcore": functools.partial(models.kept, prepare, ours, *options, as_floats=False),
            "torchvision": functools.partial(
                prepare, functools.partial(theirs, size), *options, as_floats=True
            ),
        },
        slow=slow,
        targets={"torchvision": 1.2},
        why=_WHY,
    )


ROWS = {
    "retinanet": row("RetinaNet", _BATCH, SIZE),
    "retinanet_bfloat16": row("RetinaNet", _BATCH, SIZE, bfloat16=True),
    "faster_rcnn": row("Faster R-CNN", _BATCH, SIZE),
    "faster_rcnn_bfloat16": row("Faster R-CNN", _BATCH, SIZE, bfloat16=True),
    "retinanet_batch_1": row("RetinaNet", 1, SIZE),
    "retinanet_batch_4": row("RetinaNet", 4, SIZE),
    "retinanet_small": row("RetinaNet", 2, (240, 320)),
    "retinanet_large": row("RetinaNet", 2, (768, 1344), slow=True),
}
