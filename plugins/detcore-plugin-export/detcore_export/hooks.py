"""What this plugin adds to detcore's command line. Importing it imports neither torch nor onnx."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from detcore.hooks import hookimpl


class FileFormat(StrEnum):
    """What to write."""

    ONNX = "onnx"
    TORCH_EXPORT = "torch-export"


@hookimpl
def detcore_add_commands(app: typer.Typer) -> None:
    """Adds ``export``."""
    app.command("export")(export)


def export(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A checkpoint, or a run (its best checkpoint).")
    ],
    format: Annotated[FileFormat, typer.Option(help="What to write.")] = FileFormat.ONNX,
    out: Annotated[
        Path | None, typer.Option(help="The file.", show_default="MODEL.onnx or MODEL.pt2")
    ] = None,
    batch: Annotated[str, typer.Option(metavar="dynamic|N", help="Number of images.")] = "dynamic",
    size: Annotated[
        str, typer.Option(metavar="dynamic|HxW", help="Height and width of images, in pixels.")
    ] = "dynamic",
    true_sizes: Annotated[
        bool, typer.Option("--true-sizes", help="A second input tells the true sizes of padded images.")
    ] = False,
    opset: Annotated[
        int | None, typer.Option(help="Version of ONNX's operators.", show_default="torch's choice")
    ] = None,
    check: Annotated[
        bool, typer.Option(help="Compare what the file gives with the detector; no file where it differs.")
    ] = True,
    images: Annotated[
        Path | None, typer.Option(help="An image, or a folder of images, to compare on as well.")
    ] = None,
) -> None:
    """Write a detector as ONNX or torch.export, post-processing and class names inside."""
    from detcore_export.command import run

    run(
        model,
        format=format.value,
        out=out,
        batch=batch,
        size=size,
        true_sizes=true_sizes,
        opset=opset,
        check=check,
        images=images,
    )
