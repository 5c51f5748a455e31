"""``detcore export``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor

import detcore
from detcore.checkpoint import WEIGHTS
from detcore.errors import CheckpointError, ConfigError, DataError
from detcore_export.exporting import SUFFIX, Exported, Format, export

IMAGES = (".jpg", ".jpeg", ".png", ".webp")


def run(
    model: Path,
    *,
    format: str,
    out: Path | None,
    batch: str,
    size: str,
    true_sizes: bool,
    opset: int | None,
    check: bool,
    images: Path | None,
) -> None:
    """Exports and tells what was checked; see the command's own help for the arguments."""
    count, shape = parse_batch(batch), parse_size(size)
    checkpoint = find_checkpoint(model)
    detector = detcore.load(checkpoint)
    path = out or Path(
        f"{model.with_suffix('') if model.suffix == '.safetensors' else model}{SUFFIX[format]}"
    )
    done = export(
        detector,
        path,
        format=cast(Format, format),
        batch=count,
        size=shape,
        true_sizes=true_sizes,
        opset=opset,
        check=check,
        images=read_images(images) if images else (),
    )
    for line in report(done):
        typer.echo(line)


def report(done: Exported) -> list[str]:
    """What to say of a file."""
    lines = [f"{done.path}: images of at least {done.min_size[0]}x{done.min_size[1]} pixels"]
    if not done.comparisons:
        return [*lines, "not checked"]
    cases = ", ".join(f"{c.batch} x {c.size[0]}x{c.size[1]}" for c in done.comparisons)
    lines.append(f"checked on {cases}: {done.detections} detections")
    worst = ", ".join(f"{name} {value:.2g}" for name, value in done.differences.items())
    lines.append(f"largest differences: {worst}")
    if not done.detections:
        lines.append(
            "warning: the detector found nothing in these made-up pictures, so that only finding nothing was "
            "compared; give real ones with --images"
        )
    return lines


def parse_batch(text: str) -> int | Literal["dynamic"]:
    """The value of ``--batch``.

    Raises:
        ConfigError: It is neither "dynamic" nor a number.
    """
    if text == "dynamic":
        return "dynamic"
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"--batch should be 'dynamic' or a number of images, got {text!r}")
    return int(text)


def parse_size(text: str) -> tuple[int, int] | Literal["dynamic"]:
    """The value of ``--size``.

    Raises:
        ConfigError: It is neither "dynamic" nor HxW.
    """
    if text == "dynamic":
        return "dynamic"
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if found is None:
        raise ConfigError(f"--size should be 'dynamic' or HEIGHTxWIDTH in pixels, as 800x1333, got {text!r}")
    return int(found[1]), int(found[2])


def find_checkpoint(path: Path) -> Path:
    """A checkpoint itself, or the best (else the last) one of a run.

    Raises:
        CheckpointError: There is none.
    """
    if path.is_file() or (path / WEIGHTS).is_file():
        return path
    for name in ("best", "last"):
        if (path / name / WEIGHTS).is_file():
            return path / name
    raise CheckpointError(f"{path}: neither a checkpoint nor a run with one")


def read_images(path: Path) -> list[Tensor]:
    """Images as uint8 [3, H, W].

    Raises:
        DataError: There is none, or one cannot be read.
    """
    paths = [path] if path.is_file() else sorted(p for p in path.glob("*") if p.suffix.lower() in IMAGES)
    if not paths:
        raise DataError(f"{path}: no image ({', '.join(IMAGES)})")
    images = []
    for one in paths:
        try:
            with Image.open(one) as opened:
                images.append(torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1))
        except OSError as cause:
            raise DataError(f"{one}: cannot be read as an image ({cause})") from cause
    return images
