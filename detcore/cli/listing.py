"""What ``detcore list`` and ``detcore recipes`` print, without Typer and Rich: these alone take half a second.

:func:`detcore.cli.main` runs :func:`quick` before it imports the application; the application's commands of the
same names print through the same functions.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from detcore import registry
from detcore.errors import UnknownComponentError, did_you_mean


def quick(arguments: Sequence[str]) -> bool:
    """Runs ``list [KIND] [--json]`` or ``recipes [--json]``; False where it is anything else (help, errors)."""
    command, *rest = arguments or ("",)
    positional = [word for word in rest if word != "--json"]
    limits = {"list": 1, "recipes": 0}
    if command not in limits or "_DETCORE_COMPLETE" in os.environ:
        return False
    if len(positional) > limits[command] or any(word.startswith("-") for word in positional):
        return False
    if command == "list":
        print_components(*positional, as_json="--json" in rest)
    else:
        print_recipes(as_json="--json" in rest)
    return True


def print_components(kind: str = "", *, as_json: bool = False) -> None:
    """Prints the installed components.

    Args:
        kind: Only this one; all where empty.
        as_json: Whether to print a list of objects rather than a table.

    Raises:
        UnknownComponentError: No component of that kind is installed.
    """
    known = registry.kinds()
    if kind and kind not in known:
        near = did_you_mean(kind, known) or f"kinds: {', '.join(known)}"
        raise UnknownComponentError(f"no component of kind {kind!r} is installed; {near}")
    rows = registry.entries(kind or None)
    if as_json:
        fields = ("kind", "name", "distribution", "version", "target")
        print_json([{field: getattr(entry, field) for field in fields} for entry in rows])
        return
    header = ("kind", "name", "distribution", "version")
    print_table(header, [(e.kind, e.name, e.distribution, e.version) for e in rows])


def print_recipes(*, as_json: bool = False) -> None:
    """Prints the recipes that installed plugins ship.

    Args:
        as_json: Whether to print a list of objects rather than a table.
    """
    found = {entry.name: entry for entry in registry.read_entries() if entry.kind == "recipes"}
    rows = [found[name] for name in sorted(found)]
    if as_json:
        print_json([{"name": e.name, "distribution": e.distribution, "version": e.version} for e in rows])
        return
    print_table(("recipe", "distribution", "version"), [(e.name, e.distribution, e.version) for e in rows])


def print_json(value: object) -> None:
    """Prints a value as JSON."""
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


def print_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Prints aligned columns, whole names, one row a line; a first column that repeats is left blank."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    bold, plain = ("\x1b[1m", "\x1b[0m") if is_styled(sys.stdout) else ("", "")
    rule = "─" if "utf" in (sys.stdout.encoding or "utf").lower() else "-"
    lines = [f" {bold}{_aligned(header, widths)}{plain}", " " + rule * (sum(widths) + 3 * (len(widths) - 1))]
    previous = ""
    for first, *rest in rows:
        lines.append(" " + _aligned(("" if first == previous else first, *rest), widths))
        previous = first
    sys.stdout.write("\n".join(lines) + "\n")


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "   ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def is_styled(stream: object) -> bool:
    """Whether bold and colours are wanted on a stream."""
    isatty = getattr(stream, "isatty", None)
    return bool(isatty and isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb")
