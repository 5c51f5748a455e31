"""An evaluation on a terminal of 80 columns."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from detcore_eval.errors import MEANING
from detcore_eval.report.report import Report, gain_of, text_of

_CLASSES_SHOWN = 40
_NOTES_SHOWN = 8


def show(report: Report, console: Console) -> None:
    """Prints a table per class and one of the error types."""
    console.print(_classes(report))
    console.print(_errors(report))
    console.print(Text(summary(report)))


def summary(report: Report) -> str:
    """In a few sentences what the tables are about."""
    analysis = report.analysis
    objects = int((~analysis.flat.gt_ignore).sum())
    ignored = int(analysis.flat.gt_ignore.sum())
    kept = int(analysis.looked_at.sum())
    parts = [
        f"{len(analysis.flat.positions)} images, {objects} objects"
        + (f" and {ignored} regions to ignore" if ignored else "")
        + f", {kept} of {len(analysis.flat.det_scores)} detections with a score of {analysis.score:.3f} or more."
    ]
    if analysis.suggested is None:
        parts.append("No score can be suggested: there are no objects, or no detections.")
    else:
        score, f1 = analysis.suggested
        parts.append(f"The score with the best F1 over all classes is {score:.3f} (F1 {f1:.3f}).")
    return " ".join(parts)


def _classes(report: Report) -> Table:
    table = Table(title="by class", title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("class", overflow="ellipsis", no_wrap=True, max_width=22)
    for name in ("objects", "detected", "AP", "AP50", "AP75", "AR", "score", "F1"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = report.analysis.classes
    for row in rows[:_CLASSES_SHOWN]:
        numbers = (row.ap, row.ap50, row.ap75, row.recall, row.threshold, row.f1)
        counts = (f"{row.objects}", f"{row.detections}")
        table.add_row(Text(row.name), *counts, *map(text_of, numbers))
    notes = [f"{row.name}: {row.note}" for row in rows if row.note]
    lines = notes[:_NOTES_SHOWN]
    if len(notes) > _NOTES_SHOWN:
        lines.append(f"and {len(notes) - _NOTES_SHOWN} more without numbers")
    if len(rows) > _CLASSES_SHOWN:
        lines.append(f"and {len(rows) - _CLASSES_SHOWN} more classes: the report has all")
    lines.append("score: that with the best F1, at an overlap of " + f"{report.analysis.overlap:g}")
    table.caption, table.caption_justify = Text("\n".join(lines)), "left"
    return table


def _errors(report: Report) -> Table:
    analysis = report.analysis
    title = f"errors at a score of {analysis.score:.3f} and an overlap of {analysis.overlap:g}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("error", no_wrap=True)
    table.add_column("count", justify="right")
    table.add_column("dAP", justify="right")
    table.add_column("what it is")
    for name, meaning in MEANING.items():
        table.add_row(name, f"{analysis.error_counts[name]}", gain_of(analysis.gains[name]), meaning)
    note = "dAP: what the AP at this overlap gains if errors of that type are put right"
    table.caption, table.caption_justify = Text(note), "left"
    return table
