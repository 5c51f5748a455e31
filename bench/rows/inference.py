"""A prediction, from images of bytes to lists of boxes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bench.row import Row
from bench.rows import models, scene

SIZE = (480, 640)
_WHY = (
    "Convolutions take more than four fifths of the time in both libraries, by the same kernels; faster float32 needs "
    "other algorithms for them (Winograd), faster bfloat16 a processor with AMX."
)


def prepare(
    build: Callable[[], nn.Module], batch: int, *, ours: bool, precision: str | None = None
) -> Callable[[], Any]:
    """A prediction on the same images.

    Args:
        build: Makes the detector.
        batch: Images.
        ours: Whether it is detcore's.
        precision: What ``optimize_for_inference`` gets; None does without.
    """
    model: Any = build().eval()
    if precision is not None:
        from detcore import optimize_for_inference

        model = optimize_for_inference(model, precision)  # type: ignore[arg-type]
    images = [scene.image(SIZE, seed) for seed in range(batch)]

    @torch.inference_mode()
    def predict() -> Any:
        return model(images).unpad() if ours else model([image / 255 for image in images])

    return predict


def row(
    name: str,
    batch: int,
    theirs: Callable[..., nn.Module],
    precision: str,
    target: float,
) -> Row:
    """The prediction of one detector in both libraries."""
    ours = functools.partial(models.converted, theirs, SIZE)
    peers = {"torchvision": (theirs, True), "torchvision, as it comes": (theirs, False)}
    what = {"32": "float32", "auto": "precision auto"}[precision]
    return Row(
        f"prediction, {name} R50, {batch} x {SIZE[0]} x {SIZE[1]}, {what}",
        {"detcore": functools.partial(models.kept, prepare, ours, batch, ours=True, precision=precision)}
        | {
            peer: functools.partial(
                prepare, functools.partial(build, SIZE, channels_last=last), batch, ours=False
            )
            for peer, (build, last) in peers.items()
            if last or (precision == "32" and batch == 1)
        },
        targets=dict.fromkeys(peers, target),
        why=_WHY,
    )


_PEERS = {
    "retinanet": ("RetinaNet", models.torchvision_retinanet),
    "faster_rcnn": ("Faster R-CNN", models.torchvision_faster_rcnn),
}

ROWS = {
    f"{key}{suffix}_batch_{batch}": row(name, batch, peer, precision, target)
    for key, (name, peer) in _PEERS.items()
    for precision, suffix, target in (("32", "", 1.2), ("auto", "_auto", 2.0))
    for batch in (1, 8)
}
