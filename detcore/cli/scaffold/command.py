"""``detcore new-plugin`` as a command."""

from __future__ import annotations

from pathlib import Path

import typer


def new_plugin(
    name: str = typer.Argument(help="What it is about: acme, or detcore-plugin-acme."),
    kind: str = typer.Option(help="Kind of its component: assigner, loss, backbone, ..."),
    class_name: str = typer.Option("", "--class", help="Name of the component; made from NAME by default."),
    out: Path = typer.Option(None, help="Folder to write to.", show_default="./detcore-plugin-NAME"),
) -> None:
    """Writes a new plugin: a complete distribution with a working component, tests and CI."""
    from detcore.cli.scaffold.files import write
    from detcore.cli.scaffold.plan import plan

    made = plan(name, kind, class_name)
    folder = out or Path(made.distribution)
    for path in write(made, folder):
        typer.echo(f"  {path}")
    typer.echo(
        f"\n{made.component} is a working component of kind {made.kind}: change it into yours. Then:\n\n"
        f"  cd {folder}\n  uv sync && uv run pytest         # or: pip install -e . --group dev && pytest\n"
        f"  uv run detcore show {made.component}"
    )
