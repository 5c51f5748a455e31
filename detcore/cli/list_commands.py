"""``detcore list`` and ``detcore recipes`` as commands of the application; see :mod:`detcore.cli.listing`."""

from __future__ import annotations

import typer

from detcore.cli import listing


def list_components(
    kind: str = typer.Argument("", help="Only this kind: backbones, assigners, ..."),
    as_json: bool = typer.Option(False, "--json", help="Print a list of objects."),
) -> None:
    """Lists the components of every installed plugin, importing none of them."""
    listing.print_components(kind, as_json=as_json)


def list_recipes(as_json: bool = typer.Option(False, "--json", help="Print a list of objects.")) -> None:
    """Lists the recipes that installed plugins ship; each can stand where a FILE is asked for."""
    listing.print_recipes(as_json=as_json)
