"""What an evaluation found: as JSON, on a terminal, as a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detcore.interfaces import Dataset
from detcore_eval.analysis import Analysis, ImageErrors

if TYPE_CHECKING:
    from rich.console import Console

PAGE, NUMBERS = "report.html", "report.json"


@dataclass(frozen=True)
class Report:
    """An evaluation.

    Args:
        title: What was evaluated.
        dataset: On what.
        analysis: What is wrong.
        values: The metric's numbers.
        reasons: Why some of them are None, by their names.
        worst: How many of the worst images are shown.
        source: Where the detections come from, for the JSON.
    """

    title: str
    dataset: Dataset
    analysis: Analysis
    values: Mapping[str, float | None] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    worst: int = 20
    source: Mapping[str, str] = field(default_factory=dict)

    def number(self, name: str) -> str:
        """One of the metric's numbers, or why there is none."""
        value = self.values[name]
        return text_of(value) if value is not None else self.reasons.get(name, text_of(None))

    def worst_images(self) -> list[tuple[str, ImageErrors]]:
        """Files of the worst images, and their errors."""
        from detcore_data import records_of

        records = records_of(self.dataset)
        return [(records[row.position].file, row) for row in self.analysis.worst_images(self.worst)]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        worst = [
            {"file": file, "wrong": row.wrong, "missed": row.missed, "types": dict(row.types)}
            for file, row in self.worst_images()
        ]
        return {
            "title": self.title,
            "source": dict(self.source),
            "values": dict(self.values),
            "reasons": dict(self.reasons),
            "images": len(self.analysis.flat.positions),
            **self.analysis.to_dict(),
            "worst_images": worst,
        }


def write_report(report: Report, folder: Path, console: Console | None = None) -> tuple[Path, Path]:
    """Writes ``report.json`` and ``report.html``, and prints the tables.

    Args:
        report: The evaluation.
        folder: Made where it does not exist.
        console: Where to print; nothing is printed where None.

    Returns:
        The JSON's and the page's paths.
    """
    from detcore_eval.report.page import write_page
    from detcore_eval.report.tables import show

    folder.mkdir(parents=True, exist_ok=True)
    numbers = folder / NUMBERS
    text = json.dumps(report.to_dict(), indent=1, allow_nan=False, ensure_ascii=False)
    numbers.write_text(text + "\n", encoding="utf-8")
    write_page(report, folder / PAGE)
    if console is not None:
        show(report, console)
    return numbers, folder / PAGE


def text_of(value: float | None) -> str:
    """A number with three digits, ``n/a`` for None."""
    return "n/a" if value is None else f"{value:.3f}"


def gain_of(value: float | None) -> str:
    """A difference of average precision with its sign, ``n/a`` for None."""
    return "n/a" if value is None else f"{value + 0.0:+.3f}"
