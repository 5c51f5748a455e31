"""What an inspection found, as one HTML page with pictures of it."""

from __future__ import annotations

from html import escape
from pathlib import Path

import torch
from detcore_data.inspection import Finding, Inspected, Instance
from detcore_eval import html
from detcore_eval.drawing import Drawn, draw, resized
from torch import Tensor

from detcore.errors import DataError
from detcore_train.inspection.report import Report, class_columns, class_rows, fact_rows

_EDGE = 360
_AROUND = 6.0  # a small box is shown with so many times its own size around it
_SMALL = 0.15  # of the image's edge


def write_page(report: Report, path: Path) -> None:
    """Writes the page; it needs no other file and no network. Makes the folder where it does not exist."""
    splits = {split.name: split for split in report.splits}
    body = [f"<h1>Data of {escape(report.file)}</h1>", f"<p>{report.summary}</p>"]
    body += [_section(finding, splits.get(finding.split)) for finding in report.findings]
    if report.splits:
        rows, columns = fact_rows(report.splits), ["", *(split.name for split in report.splits)]
        body += ["<h2>Data</h2><p>least / median / greatest</p>", html.table(columns, rows)]
        body += ["<h2>Classes</h2>", html.table(class_columns(report.splits), class_rows(report.splits))]
    html.write(html.page(report.file, "".join(body)), path)


def _section(finding: Finding, split: Inspected | None) -> str:
    title = f"{finding.severity}: {finding.count} &times; {escape(finding.check)} ({escape(finding.split)})"
    texts, figures = [], []
    for example in finding.examples:
        shown = None if split is None else picture(split, example)
        if shown is None:
            texts.append(f"<li>{escape(str(example))}</li>")
        else:
            image = html.picture(shown, str(example))
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
