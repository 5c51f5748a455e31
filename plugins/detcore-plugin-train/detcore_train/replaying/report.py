"""A replay as text, as JSON and as pictures."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from detcore_data import ExampleBatch
from detcore_eval.drawing import Drawn, draw
from PIL import Image
from rich.console import Console
from rich.table import Table

from detcore_train.replaying.replay import ImageReplay, Replay

_LISTED = 5


def to_dict(done: Replay) -> dict[str, Any]:
    """Everything as plain values; losses as text, since JSON has no NaN."""
    circumstances = done.batch.circumstances
    return {
        "batch": str(done.batch.path),
        "finite": not done.bad,
        "same_as_in_training": done.same,
        "in_training": {**asdict(circumstances), "losses": _texts(circumstances.losses)},
        "losses": _texts(done.losses),
        "gradients": list(done.gradients),
        "origin": None if done.origin is None else {**asdict(done.origin), "text": str(done.origin)},
        "derivative": done.derivative or None,
        "images": [
            {**asdict(image), "losses": _texts(image.losses), "finite": not image.bad}
            for image in done.images
        ],
    }


def to_json(done: Replay) -> str:
    """:func:`to_dict` as text."""
    return json.dumps(to_dict(done), indent=1, ensure_ascii=False)


def show(done: Replay, console: Console) -> None:
    """Prints what was found, the verdict last."""
    was = done.batch.circumstances
    console.print(
        f"epoch {was.epoch}, step {was.step + 1}, process {was.rank} of {was.processes}, {was.device}, "
        f"precision {was.precision}",
        highlight=False,
    )
    console.print(_table(done))
    for image in done.images:
        for row, odd in image.boxes.items():
            console.print(
                f"image {image.image_id}, ground truth {row}: {odd}", soft_wrap=True, highlight=False
            )
    for line in verdict(done):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def verdict(done: Replay) -> list[str]:
    """What the replay tells, in sentences."""
    was = done.batch.circumstances
    if not done.bad:
        lines = ["finite: here, every loss and gradient of the batch is finite"]
        if was.processes > 1:
            lines.append(f"it was met by one of {was.processes} processes, which share counts and statistics")
        return lines
    lines = [
        "not finite again, bit for bit as in training"
        if done.same
        else "not finite again, with other numbers"
    ]
    if done.origin is not None:
        lines.append(f"it arises {done.origin}")
    elif not done.gradients:
        lines.append("every module's output is finite: it arises in the losses' own arithmetic")
    if done.gradients:
        more = ", ..." if done.gradients[_LISTED:] else ""
        listed = ", ".join(done.gradients[:_LISTED])
        lines.append(f"gradients that are not finite: {len(done.gradients)} ({listed}{more})")
    if done.derivative:
        lines.append(f"the first derivative that is NaN: {done.derivative}")
    return [*lines, *_blame(done)]


def _blame(done: Replay) -> list[str]:
    bad = [image for image in done.images if image.bad]
    if not bad:
        return ["no image alone does it: only together (statistics of the batch, or its counts)"]
    return [_whose(image) for image in bad]


def _whose(image: ImageReplay) -> str:
    name = f"image {image.image_id} ({image.file})"
    if image.without:
        return f"{name} alone does it, without any ground truth too: look at the image and at the weights"
    if image.guilty:
        return f"{name} alone does it, with ground truth {', '.join(map(str, image.guilty))} alone"
    return f"{name} alone does it, but with none of its ground truths alone"


def _table(done: Replay) -> Table:
    table = Table()
    for title in ("", *done.losses, "gradients"):
        table.add_column(title, justify="left" if not title else "right")
    was = done.batch.circumstances
    before = [f"{was.losses[name]:.6g}" if name in was.losses else "" for name in done.losses]
    table.add_row("in training", *before, _count(was.gradients))
    table.add_row("now", *(f"{v:.6g}" for v in done.losses.values()), _count(done.gradients))
    for image in done.images:
        numbers = [f"{image.losses[name]:.6g}" for name in done.losses]
        table.add_row(f"image {image.image_id} alone", *numbers, _count(image.gradients))
    return table


def _count(gradients: tuple[str, ...]) -> str:
    return f"{len(gradients)} bad" if gradients else "-"


def write_pictures(batch: ExampleBatch, names: tuple[str, ...], folder: Path) -> list[Path]:
    """Each image with its boxes and masks, as the detector saw it.

    Args:
        batch: The batch.
        names: Class names by label.
        folder: Where to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for index, (image, image_id) in enumerate(zip(batch.images, batch.image_ids, strict=True)):
        picture = draw(image.contiguous(), _drawn(batch, index, len(names)), names)
        path = folder / f"{index:02d}-image-{image_id}.png"
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(path)
        written.append(path)
    return written


def _drawn(batch: ExampleBatch, index: int, classes: int) -> Drawn:
    targets, (height, width) = batch.targets, batch.images[index].shape[-2:]
    rows = targets.valid[index]
    boxes = torch.nan_to_num(targets.boxes[index][rows], nan=0.0)
    masks = None
    if targets.masks is not None:
        masks = targets.masks.dense(1)[index][rows][:, :height, :width].bool()
    return Drawn(boxes, targets.labels[index][rows].clamp(0, classes - 1), None, masks)


def _texts(losses: Any) -> dict[str, str]:
    return {name: repr(float(value)) for name, value in losses.items()}
