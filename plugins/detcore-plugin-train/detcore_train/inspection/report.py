"""What an inspection found, as tables and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from detcore_data.inspection import Finding, Inspected
from rich.console import Console
from rich.table import Table
from rich.text import Text

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_CLASSES_SHOWN = 30


@dataclass(frozen=True)
class Report:
    """An inspection of an experiment's data.

    Args:
        file: The experiment.
        splits: What could be read.
        findings: All findings, the worst first.
    """

    file: str
    splits: tuple[Inspected, ...]
    findings: tuple[Finding, ...]

    def count(self, severity: str) -> int:
        """How many findings have that severity."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def summary(self) -> str:
        """One line."""
        parts = [f"{self.count('error')} errors", f"{self.count('warning')} warnings"]
        return f"{', '.join(parts)}, {self.count('note')} notes"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "file": self.file,
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "notes": self.count("note"),
            "splits": {
                split.name: {
                    "source": split.source,
                    **split.facts,
                    "classes": [asdict(row) for row in split.classes],
                }
                for split in self.splits
            },
            "findings": [finding.to_dict() for finding in self.findings],
        }


def write_json(report: Report, path: Path) -> None:
    """Writes the report; makes the folder where it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def show(report: Report, console: Console) -> None:
    """Prints facts, classes and findings as tables."""
    if report.splits:
        console.print(_facts(report.splits))
        console.print(_classes(report.splits))
    if report.findings:
        console.print(_findings(report.findings))
    console.print(report.summary)


def fact_rows(splits: Sequence[Inspected]) -> list[tuple[str, ...]]:
    """Names of facts, and their values for each split."""
    names = list(splits[0].facts)
    return [(name.replace("_", " "), *(_text(split.facts[name]) for split in splits)) for name in names]


def class_rows(splits: Sequence[Inspected]) -> list[tuple[str, ...]]:
    """Per class its label, its name, and for each split its dataset id and numbers of objects and images."""
    return [
        (
            str(row.label),
            row.name,
            *(
                cell
                for split in splits
                if row.label < len(split.classes)
                for cell in _numbers(split, row.label)
            ),
        )
        for row in splits[0].classes
    ]


def class_columns(splits: Sequence[Inspected]) -> list[str]:
    """Headings of :func:`class_rows`."""
    return ["label", "name", *(f"{s.name} {what}" for s in splits for what in ("id", "objects", "images"))]


def _numbers(split: Inspected, label: int) -> tuple[str, str, str]:
    row = split.classes[label]
    return str(row.dataset_id), str(row.objects), str(row.images)


def _text(value: Any) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, dict):
        return " / ".join(f"{number:g}" for number in value.values())
    if isinstance(value, list):
        return ", ".join(f"{row['width']} x {row['height']} ({row['images']})" for row in value) or "n/a"
    return str(value)


def _facts(splits: Sequence[Inspected]) -> Table:
    table = Table(title="data (least / median / greatest)", title_justify="left")
    table.add_column("")
    for split in splits:
        table.add_column(split.name, justify="right")
    for row in fact_rows(splits):
        table.add_row(*map(Text, row))
    return table


def _classes(splits: Sequence[Inspected]) -> Table:
    table = Table(title="classes", title_justify="left")
    for i, name in enumerate(class_columns(splits)):
        table.add_column(name, justify="left" if i == 1 else "right")
    rows = class_rows(splits)
    for row in rows[:_CLASSES_SHOWN]:
        table.add_row(*map(Text, row))
    if len(rows) > _CLASSES_SHOWN:
        table.caption = f"and {len(rows) - _CLASSES_SHOWN} more: --json FILE has all"
    return table


def _findings(findings: Sequence[Finding]) -> Table:
    table = Table(title="findings", title_justify="left", show_lines=True)
    for name in ("", "split", "check", "count"):
        table.add_column(name, no_wrap=name != "check", justify="right" if name == "count" else "left")
    table.add_column("what, what to do, the first ones", overflow="fold", ratio=1)
    for finding in findings:
        lines = [finding.what, f"-> {finding.remedy}", *(f"   {example}" for example in finding.examples)]
        table.add_row(
            Text(finding.severity, _STYLES[finding.severity]),
            Text(finding.split),
            Text(finding.check),
            str(finding.count),
            Text("\n".join(lines)),
        )
    return table
