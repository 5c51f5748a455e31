"""``detcore schema``: JSON Schema for editors."""

from __future__ import annotations

import json

import typer


def schema(
    name: str = typer.Argument(
        "Experiment", help="A component, bare or distribution:Name; the whole file by default."
    ),
    out: str = typer.Option("", "--out", "-o", help="Write to this file instead of the terminal."),
) -> None:
    """Prints the JSON Schema of a component's configuration, by default of a whole experiment file."""
    from pathlib import Path

    from detcore.schema import json_schema

    text = json.dumps(json_schema(name), indent=1)
    if out:
        Path(out).write_text(text + "\n", encoding="utf-8")
        typer.echo(
            f"written to {out}; in YAML, name it in the first line: # yaml-language-server: $schema={out}"
        )
    else:
        typer.echo(text)
