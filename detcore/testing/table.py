"""The table of checks, for the documentation: ``python -m detcore.testing.table docs/conformance.md`` renews it."""

from __future__ import annotations

import sys
from pathlib import Path

from detcore.testing.catalog import built_in_checks
from detcore.testing.checking import Check

BEGIN, END = "<!-- checks: begin -->\n", "<!-- checks: end -->"


def table() -> str:
    """Every check of this package, by interface, as Markdown."""
    by_interface: dict[str, list[Check]] = {}
    for check in built_in_checks():
        by_interface.setdefault(check.interface.__name__, []).append(check)
    lines = []
    for interface, checks in by_interface.items():
        lines += [f"\n### {interface}\n", "| check | version | what it says |", "|---|---|---|"]
        for check in checks:
            slow = " (slow)" if check.slow else ""
            lines.append(f"| `{check.name}` | {check.version} | {check.behaviour}{slow} |")
    return "\n".join(lines) + "\n\n"


def renew(path: Path) -> None:
    """Puts the present table between the marks of a page."""
    head, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, tail = rest.partition(END)
    path.write_text(head + begin + table() + end + tail, encoding="utf-8")


if __name__ == "__main__":
    renew(Path(sys.argv[1]))
