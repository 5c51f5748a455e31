"""What this plugin adds to detcore's command line. Importing it imports neither torch nor lightning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from detcore.hooks import hookimpl

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Values over those of the file.", show_default=False),
]
Workers = Annotated[int, typer.Option(min=0, help="Processes that read images.")]


@hookimpl
def detcore_add_commands(app: typer.Typer) -> None:
    """Adds ``train``, ``eval``, ``predict`` and ``demo``."""
    app.command("train")(train)


def train(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="An experiment (YAML, TOML, JSON) or a recipe's name.")
    ],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.  [default: runs/FILE's name]")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in that folder, if there is one.")
    ] = False,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    devices: Annotated[str, typer.Option(help="How many of them on this machine; auto for all.")] = "auto",
    nodes: Annotated[int, typer.Option(min=1, help="How many machines.")] = 1,
) -> None:
    """Train a detector as an experiment file says."""
    from detcore_train.commands.train import run

    run(file, overrides or [], out=out, resume=resume, accelerator=accelerator, devices=devices, nodes=nodes)
