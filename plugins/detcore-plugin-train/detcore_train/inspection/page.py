"""What an inspection found, as one HTML page with pictures of it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

import torch
from detcore_data.inspection import Finding, Inspected, Instance
from PIL import Image
from torch import Tensor

from detcore.errors import DataError
from detcore_train.drawing import Drawn, draw, resized
from detcore_train.inspection.report import Report, class_columns, class_rows, fact_rows

_EDGE = 360
_AROUND = 6.0  # a small box is shown with so many times its own size around it
_SMALL = 0.15  # of the image's edge
_QUALITY = 85

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em;color:#1c1c1c;background:#fff}
table{border-collapse:collapse;margin:.5em 0 1.5em}td,th{border:1px solid #ccc;padding:.2em .6em;text-align:right}
td:first-child,th:first-child,td.name{text-align:left}
section{border-left:.4em solid #999;padding:.1em 1em;margin:1.2em 0;background:#f7f7f7}
section.error{border-color:#c62828}section.warning{border-color:#f0a000}section.note{border-color:#2878b8}
h3{margin:.4em 0}.pictures{display:flex;flex-wrap:wrap;gap:1em}figure{margin:.4em 0;max-width:23em}
figure img{max-width:100%}figcaption,li{font-size:.85em;overflow-wrap:anywhere}
"""


def write_page(report: Report, path: Path) -> None:
    """Writes the page; it needs no other file and no network. Makes the folder where it does not exist."""
    splits = {split.name: split for split in report.splits}
    body = [f"<h1>Data of {escape(report.file)}</h1>", f"<p>{report.summary}</p>"]
    body += [_section(finding, splits.get(finding.split)) for finding in report.findings]
    if report.splits:
        rows, columns = fact_rows(report.splits), ["", *(split.name for split in report.splits)]
        body += ["<h2>Data</h2><p>least / median / greatest</p>", _table(columns, rows)]
        body += ["<h2>Classes</h2>", _table(class_columns(report.splits), class_rows(report.splits))]
    head = f"<meta charset='utf-8'><title>{escape(report.file)}</title><style>{_STYLE}</style>"
    text = f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(body)}</body></html>\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _section(finding: Finding, split: Inspected | None) -> str:
    title = f"{finding.severity}: {finding.count} &times; {escape(finding.check)} ({escape(finding.split)})"
    texts, figures = [], []
    for example in finding.examples:
        shown = None if split is None else picture(split, example)
        if shown is None:
            texts.append(f"<li>{escape(str(example))}</li>")
        else:
            image = f"<img alt='{escape(str(example), quote=True)}' src='{data_uri(shown)}'>"
            figures.append(f"<figure>{image}<figcaption>{escape(str(example))}</figcaption></figure>")
    listed = f"<ul>{''.join(texts)}</ul>" if texts else ""
    drawn = f"<div class='pictures'>{''.join(figures)}</div>" if figures else ""
    return (
        f"<section class='{finding.severity}'><h3>{title}</h3><p>{escape(finding.what)}.<br>"
        f"<b>What to do:</b> {escape(finding.remedy)}.</p>{listed}{drawn}</section>"
    )


def picture(split: Inspected, example: Instance) -> Tensor | None:
    """The image with the example's box, as uint8 RGB; None where it has no image that can be read.

    A small box is shown with its surroundings only. A box that reaches out is drawn up to the border.

    Args:
        split: Where the example is.
        example: What to draw.
    """
    if example.image is None or split.reader is None:
        return None
    try:
        image = split.reader(example.file, split.records[example.image].size)
    except DataError:
        return None
    boxes, names = torch.zeros(0, 4), []
    if example.box is not None and all(abs(x) < 1e9 for x in example.box):
        boxes = torch.tensor([example.box])
        names = [f"{example.label or 'ignored'} #{example.annotation}"]
        image, boxes = _cut(image, boxes)
    factor = _EDGE / max(image.shape[-2:])
    large = resized(image, factor)
    labels = torch.zeros(len(boxes), dtype=torch.int64)
    return draw(large, Drawn(boxes * factor, labels), names)


def _cut(image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The surroundings of a small box, the whole image of a large one, and the box in it."""
    height, width = image.shape[-2:]
    x1, y1, x2, y2 = boxes[0].tolist()
    side = max(abs(x2 - x1), abs(y2 - y1))
    inside = 0 <= (x1 + x2) / 2 <= width and 0 <= (y1 + y2) / 2 <= height
    if side > _SMALL * max(height, width) or not inside:
        return image, boxes
    half = max(side * _AROUND / 2, 24.0)
    left, top = (max(0, int((a + b) / 2 - half)) for a, b in ((x1, x2), (y1, y2)))
    right, bottom = min(width, int(left + 2 * half)), min(height, int(top + 2 * half))
    return image[:, top:bottom, left:right], boxes - boxes.new_tensor([left, top, left, top])


def data_uri(picture: Tensor) -> str:
    """A picture inside a page.

    Args:
        picture: uint8 [3, H, W], RGB.
    """
    buffer = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
