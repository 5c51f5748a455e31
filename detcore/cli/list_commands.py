"""``detcore list`` and ``detcore recipes``: what is installed, from metadata alone."""

from __future__ import annotations

import json

import typer

from detcore import registry


def list_components(
    kind: str = typer.Argument("", help="Only this kind: backbones, assigners, ..."),
    as_json: bool = typer.Option(False, "--json", help="Print a list of objects."),
) -> None:
    """Lists the components of every installed plugin, importing none of them."""
    known = registry.kinds()
    if kind and kind not in known:
        from detcore.errors import UnknownComponentError, did_you_mean

        near = did_you_mean(kind, known) or f"kinds: {', '.join(known)}"
        raise UnknownComponentError(f"no component of kind {kind!r} is installed; {near}")
    entries = registry.entries(kind or None)
    if as_json:
        fields = ("kind", "name", "distribution", "version", "target")
        typer.echo(json.dumps([{f: getattr(e, f) for f in fields} for e in entries], indent=1))
        return
    _table(
        ("kind", "name", "distribution", "version"),
        [(e.kind, e.name, e.distribution, e.version) for e in entries],
    )


def list_recipes(as_json: bool = typer.Option(False, "--json", help="Print a list of objects.")) -> None:
    """Lists the recipes that installed plugins ship; each can stand where a FILE is asked for."""
    from detcore import config

    entries = sorted(config.recipes().values(), key=lambda e: e.name)
    if as_json:
        rows = [{"name": e.name, "distribution": e.distribution, "version": e.version} for e in entries]
        typer.echo(json.dumps(rows, indent=1))
        return
    _table(("recipe", "distribution", "version"), [(e.name, e.distribution, e.version) for e in entries])


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*header, box=box.SIMPLE_HEAD, pad_edge=False)
    previous = ""
    for first, *rest in rows:
        table.add_row("" if first == previous else first, *rest)
        previous = first
    console = Console()
    # piped output keeps whole names, one row a line
    console.print(table, width=None if console.is_terminal else 200)
