"""``detcore show``: one component."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from detcore.describe import Description, ParameterDescription


def show(
    name: str = typer.Argument(help="A component, bare or distribution:Name."),
    kind: str = typer.Option("", help="Its kind, where components of several kinds have that name."),
    as_json: bool = typer.Option(False, "--json", help="Print one object."),
) -> None:
    """Shows a component: its parameters, its interface, its paper, where it lives, and how to use it."""
    from detcore import registry
    from detcore.cli import listing
    from detcore.describe import describe

    description = describe(registry.resolve(kind or None, name))
    if as_json:
        listing.print_json(description.to_dict())
        return
    for line in _lines(description):
        typer.echo(line)


def _lines(description: Description) -> Iterator[str]:
    yield f"{typer.style(description.name, bold=True)}: {description.summary}"
    if description.text:
        yield ""
        yield textwrap.indent(description.text, "  ")
    yield ""
    facts = {
        "interface": f"{description.interface} (kind {description.kind}, version {description.api_version})",
        "registered by": description.distribution or "nobody",
        "class": description.target,
        "file": description.file or "unknown",
        "paper": "; ".join(description.links) or "none named",
    }
    yield from (f"  {label:<15}{fact}" for label, fact in facts.items())
    yield ""
    yield typer.style("Parameters", bold=True) if description.parameters else "No parameters"
    for parameter in description.parameters:
        yield from _parameter_lines(parameter)
    for language, usage in (("Python", description.python), ("YAML", description.yaml)):
        yield ""
        yield typer.style(language, bold=True)
        yield textwrap.indent(usage, "  ")


def _parameter_lines(parameter: ParameterDescription) -> Iterator[str]:
    pieces = [parameter.type, parameter.constraint]
    if parameter.wired:
        pieces.append("supplied by its owner")
    pieces.append(f"default {parameter.default}" if parameter.default else "required" * (not parameter.wired))
    yield f"  {parameter.name}: {'; '.join(piece for piece in pieces if piece)}"
    yield from textwrap.wrap(parameter.doc, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
