"""A training step: forward, backward and optimizer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bench.row import Row
from bench.rows import models, scene
from detcore.precision import has_bfloat16

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


def row(
    name: str,
    batch: int,
    size: tuple[int, int],
    precision: str = "32",
    target: float = 1.0,
) -> Row:
    """The step of one detector in both libraries.

    Args:
        name: Of the detector.
        batch: Images.
        size: Their (h, w).
        precision: "32" and "bf16" are for both; "auto" is what an experiment makes of it, against float32.
        target: How many times as long torchvision is to take.
    """
    ours, theirs = {
        "RetinaNet": (models.detcore_retinanet, models.torchvision_retinanet),
        "Faster R-CNN": (models.detcore_faster_rcnn, models.torchvision_faster_rcnn),
    }[name]
    what = {"32": "float32", "auto": "precision auto", "bf16": "bfloat16"}[precision]
    their_build = functools.partial(theirs, size)
    return Row(
        f"training step, {name} R50, {batch} x {size[0]} x {size[1]}, {what}",
        {
            "detcore": functools.partial(
                models.kept, prepare, ours, batch, size, _bfloat16(precision), as_floats=False
            ),
            "torchvision": functools.partial(
                prepare, their_build, batch, size, precision == "bf16", as_floats=True
            ),
        },
        targets={"torchvision": target},
        why=_WHY,
    )


def _bfloat16(precision: str) -> bool:
    return precision == "bf16" or (precision == "auto" and has_bfloat16(scene.device()))


ROWS = {
    "retinanet": row("RetinaNet", _BATCH, SIZE, target=1.2),
    "retinanet_bfloat16": row("RetinaNet", _BATCH, SIZE, "bf16"),
    "retinanet_auto": row("RetinaNet", _BATCH, SIZE, "auto", target=2.0),
    "faster_rcnn": row("Faster R-CNN", _BATCH, SIZE, target=1.2),
    "faster_rcnn_bfloat16": row("Faster R-CNN", _BATCH, SIZE, "bf16"),
    "faster_rcnn_auto": row("Faster R-CNN", _BATCH, SIZE, "auto", target=2.0),
    "retinanet_batch_1": row("RetinaNet", 1, SIZE),
    "retinanet_batch_4": row("RetinaNet", 4, SIZE),
    "retinanet_small": row("RetinaNet", 2, (240, 320)),
    "retinanet_large": row("RetinaNet", 2, (768, 1344)),
}
