"""Prediction from bytes to boxes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bench.row import Row
from bench.rows import models, scene

SIZE = (480, 640)


def prepare(build: Callable[[], nn.Module], batch: int, *, ours: bool) -> Callable[[], Any]:
    """A prediction on the same images."""
    model = build().eval()
    images = [scene.image(SIZE, seed) for seed in range(batch)]

    @torch.inference_mode()
    def predict() -> Any:
        return model(images).unpad() if ours else model([image / 255 for image in images])

    return predict


def row(name: str, batch: int, ours: Callable[[], nn.Module], theirs: Callable[..., nn.Module]) -> Row:
    """The prediction of one detector in both libraries."""
    return Row(
        f"prediction, {name} R50, {batch} x {SIZE[0]} x {SIZE[1]}, float32",
        {
            "detcore": functools.partial(prepare, ours, batch, ours=True),
            "torchvision": functools.partial(prepare, functools.partial(theirs, SIZE), batch, ours=False),
        },
    )


_RETINA = ("RetinaNet", models.detcore_retinanet, models.torchvision_retinanet)
_FASTER = ("Faster R-CNN", models.detcore_faster_rcnn, models.torchvision_faster_rcnn)

ROWS = {
    f"{key}_batch_{batch}": row(name, batch, ours, theirs)
    for key, (name, ours, theirs) in {"retinanet": _RETINA, "faster_rcnn": _FASTER}.items()
    for batch in (1, 8)
}
