"""``detcore import-mmdet``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_mmdet(
    config: Annotated[
        Path, typer.Argument(help="MMDetection's configuration: a .py file; it is read, never executed.")
    ],
    checkpoint: Annotated[
        Path | None, typer.Argument(help="Its weights: a .pth or .safetensors file.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="Folder to write: model, report, and a file to train with.")
    ] = Path("imported"),
) -> None:
    """Imports a detector of MMDetection: configuration, weights and class names."""
    from detcore.errors import DetcoreError
    from detcore_mmdet.importing import import_files

    try:
        for line in import_files(config, checkpoint, out):
            typer.echo(line)
    except DetcoreError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
