"""An evaluation as one HTML page; it needs no other file, no network and no scripts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from detcore_eval import html
from detcore_eval.errors import MEANING, State
from detcore_eval.report.pictures import STATE_COLORS, both_sides
from detcore_eval.report.report import Report, gain_of, text_of
from detcore_eval.report.svg import curves, hex_of
from detcore_eval.report.tables import summary

_CURVES = 20
_CONFUSED = 30
_STYLE = """
svg.curves{font:12px system-ui,sans-serif;max-width:100%;height:auto}.side{display:flex;flex-wrap:wrap;gap:2em}
.key{display:inline-block;width:.9em;height:.9em;margin-right:.4em;vertical-align:-.1em}
figure.wide{max-width:72em}ul.legend{list-style:none;padding:0;columns:2;max-width:32em}
td.bar{min-width:12em}td.bar div{height:.9em;background:#c62828}td.text,table.errors th{text-align:left}
table.confusion td{min-width:2.2em}table.confusion th.down{writing-mode:vertical-rl;transform:rotate(180deg)}
p.note{color:#555;font-size:.9em;max-width:60em}
"""


def write_page(report: Report, path: Path) -> None:
    """Writes the page; makes the folder where it does not exist."""
    body = [
        f"<h1>Evaluation of {escape(report.title)}</h1>",
        f"<p>{escape(summary(report))}</p>",
        _values(report),
        _errors(report),
        _classes(report),
        _curves(report),
        _confusion(report),
        _worst(report),
    ]
    html.write(html.page(f"Evaluation of {report.title}", "".join(body), style=_STYLE), path)


def _values(report: Report) -> str:
    rows = [(name, report.number(name)) for name in report.values if "/" not in name]
    return f"<h2>Numbers</h2>{html.table(('metric', 'value'), rows)}" if rows else ""


def _errors(report: Report) -> str:
    analysis = report.analysis
    most = max((gain or 0.0 for gain in analysis.gains.values()), default=0.0) or 1.0
    rows = []
    for name, meaning in MEANING.items():
        gain = analysis.gains[name]
        length = 100 * max(gain or 0.0, 0.0) / most
        rows.append(
            f"<tr><td>{name}</td><td>{analysis.error_counts[name]}</td><td>{gain_of(gain)}</td>"
            f"<td class='bar'><div style='width:{length:.1f}%'></div></td><td class='text'>{meaning}</td></tr>"
        )
    special = ", ".join(
        f"{gain_of(analysis.gains[f'false {x}'])} without false {x}" for x in ("positives", "negatives")
    )
    head = "".join(f"<th>{name}</th>" for name in ("error", "count", "dAP", "", "what it is"))
    return (
        f"<h2>Errors</h2><p>Detections with a score of {analysis.score:.3f} or more, at an overlap of "
        f"{analysis.overlap:g}.</p><table class='errors'><tr>{head}</tr>{''.join(rows)}</table>"
        "<p class='note'>dAP: what the AP at this overlap gains if the errors of that type are put right, over "
        f"detections of any score; {special}. The types are those of TIDE (Bolya et al. 2020).</p>"
    )


def _classes(report: Report) -> str:
    columns = ("class", "objects", "detected", "AP", "AP50", "AP75", "AR", "score", "F1", "note")
    rows = [
        (
            row.name,
            str(row.objects),
            str(row.detections),
            *map(text_of, (row.ap, row.ap50, row.ap75, row.recall, row.threshold, row.f1)),
            row.note,
        )
        for row in report.analysis.classes
    ]
    note = f"score: that with the best F1 at an overlap of {report.analysis.overlap:g}."
    return f"<h2>Classes</h2>{html.table(columns, rows)}<p class='note'>{note}</p>"


def _curves(report: Report) -> str:
    analysis = report.analysis
    names = analysis.flat.names
    shown = sorted(range(len(names)), key=lambda label: -analysis.classes[label].objects)[:_CURVES]
    figures = []
    for overlap in (0.5, 0.75):
        by_class = analysis.curves(overlap)
        rows = [(k, names[k], p) for k in shown if (p := by_class[k].precision()) is not None]
        if rows:
            title = f"Overlap {overlap:g}"
            figures.append(f"<figure><figcaption>{title}</figcaption>{curves(rows, title)}</figure>")
    if not figures:
        return ""
    legend = "".join(
        f"<li><span class='key' style='background:{hex_of(k)}'></span>{escape(names[k])} "
        f"{text_of(analysis.classes[k].ap50)} / {text_of(analysis.classes[k].ap75)}</li>"
        for k in shown
        if analysis.classes[k].objects
    )
    some = f" The {_CURVES} classes with the most objects." if len(names) > _CURVES else ""
    return (
        f"<h2>Precision and recall</h2><div class='side'>{''.join(figures)}</div><ul class='legend'>{legend}</ul>"
        f"<p class='note'>AP50 / AP75 beside the names.{some}</p>"
    )


def _confusion(report: Report) -> str:
    analysis = report.analysis
    matrix, names = analysis.confusion, [*analysis.flat.names, "background"]
    off = matrix - np.diag(np.diag(matrix))
    wrong = off.sum(axis=0) + off.sum(axis=1)
    last = len(names) - 1
    chosen = [*sorted(np.argsort(-wrong[:last], kind="stable")[:_CONFUSED].tolist()), last]
    rows = []
    for i in chosen:
        total = int(matrix[i].sum())
        cells = "".join(_cell(int(matrix[i, j]), total, right=i == j, empty=i == j == last) for j in chosen)
        rows.append(f"<tr><th>{escape(names[i])}</th>{cells}</tr>")
    head = "".join(f"<th class='down'>{escape(names[j])}</th>" for j in chosen)
    some = f" The {_CONFUSED} classes with the most confusions." if last > _CONFUSED else ""
    return (
        "<h2>Confusion</h2><p>Rows: what there is; columns: what was detected there.</p>"
        f"<table class='confusion'><tr><th></th>{head}</tr>{''.join(rows)}</table>"
        f"<p class='note'>Detections with a score of {analysis.score:.3f} or more. Each stands for at most one "
        f"object: first for one of its own class.{some}</p>"
    )


def _cell(count: int, total: int, *, right: bool, empty: bool) -> str:
    if empty:
        return "<td></td>"
    strength = count / total if total else 0.0
    color = f"rgba(30,150,60,{strength:.2f})" if right else f"rgba(215,35,35,{strength:.2f})"
    return f"<td style='background:{color}'>{count}</td>"


def _worst(report: Report) -> str:
    figures = []
    for file, row in report.worst_images():
        counts = ", ".join(f"{number} {name}" for name, number in row.types.items())
        picture = both_sides(report.dataset, report.analysis, row.position)
        shown = "<p>The image cannot be read.</p>" if picture is None else html.picture(picture, file)
        caption = f"<figcaption>{escape(file)}: {counts}</figcaption>"
        figures.append(f"<figure class='wide'>{caption}{shown}</figure>")
    if not figures:
        return "<h2>Worst images</h2><p>There are no errors.</p>"
    return (
        f"<h2>Worst images</h2><p>Those with the most errors.</p>{_legend(list(STATE_COLORS))}"
        "<p class='note'>Of the ground truth, missed objects are red; those that a localisation or classification "
        f"error is about are orange.</p>{''.join(figures)}"
    )


def _legend(states: Sequence[State]) -> str:
    items = []
    for state in states:
        if state == State.UNCOUNTED:
            continue
        red, green, blue = STATE_COLORS[state]
        name = {"true": "found", "excused": "ignored"}.get(state.name.lower(), state.name.lower())
        items.append(f"<li><span class='key' style='background:rgb({red},{green},{blue})'></span>{name}</li>")
    return f"<ul class='legend'>{''.join(items)}</ul>"
