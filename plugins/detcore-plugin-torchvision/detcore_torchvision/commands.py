"""``detcore import-torchvision``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_torchvision(
    source: Annotated[
        str,
        typer.Argument(
            metavar="NAME_OR_FILE",
            help="Published weights (RetinaNet_ResNet50_FPN_Weights.COCO_V1), a model (retinanet_resnet50_fpn: its "
            "first weights), or a .pth or .safetensors file.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to write: model and report.")] = Path("imported"),
    classes: Annotated[
        str | None,
        typer.Option(
            help="Names of the classes of a file, separated by commas, in the order of torchvision's labels from 1."
        ),
    ] = None,
    keep_unused: Annotated[
        bool, typer.Option("--keep-unused", help="Keep the labels that COCO's files do not use (N/A).")
    ] = False,
) -> None:
    """Imports a detector of torchvision: architecture, weights and class names."""
    from detcore.errors import DetcoreError
    from detcore_torchvision.importing import import_files

    names = None if classes is None else ["__background__", *(name.strip() for name in classes.split(","))]
    try:
        for line in import_files(source, out, categories=names, keep_unused=keep_unused):
            typer.echo(line)
    except DetcoreError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
