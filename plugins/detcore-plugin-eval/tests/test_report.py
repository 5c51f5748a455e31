from __future__ import annotations

import html as standard_html
import io
import json
import re
import socket
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from detcore_data import CocoMetric, Collected, ShapesDataset
from detcore_eval import analyse
from detcore_eval.report import Report, write_report
from detcore_eval.report.pictures import both_sides
from detcore_eval.report.tables import show
from rich.console import Console

from detcore.structures import ImageDetections

EVIL = "<script>alert(1)</script>\"'&[red]"


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag not in ("meta", "img", "path", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def evaluated(dataset, seed=0, worst=3):
    """Detections near the truth, some wrong, and the report on them."""
    random = torch.Generator().manual_seed(seed)
    metric, collected = CocoMetric(), Collected(dataset)
    metric.start(dataset)
    records = dataset.records
    for i in range(len(dataset)):
        rows = records.annotations.select(records[i].rows)
        boxes = rows.boxes.float().repeat(2, 1)
        boxes[:, 2:] += boxes[:, :2]
        n = len(boxes)
        boxes = boxes + torch.randn(n, 4, generator=random) * 4
        boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        labels = (rows.labels.repeat(2) + (torch.rand(n, generator=random) < 0.2).long()) % len(
            records.class_map
        )
        found = ImageDetections(boxes, torch.rand(n, generator=random), labels)
        metric.update([records[i].image_id], [found])
        collected.add([records[i].image_id], [found])
    analysis = analyse(collected, score=0.3)
    return Report(
        "runs/one", dataset, analysis, metric.compute(), metric.reasons(), worst, {"checkpoint": "x"}
    )


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return ShapesDataset(root=tmp_path_factory.mktemp("shapes"), length=8, size=(60, 80), empty=0.2)


def printed(report, width=80):
    console = Console(width=width, file=io.StringIO())
    show(report, console)
    return console.file.getvalue()


def test_files(shapes, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("no network")

    monkeypatch.setattr(socket, "socket", refuse)
    report = evaluated(shapes)
    numbers, page = write_report(report, tmp_path / "new" / "folder")
    data = json.loads(numbers.read_text())
    assert data["title"] == "runs/one"
    assert data["values"]["AP"] == report.values["AP"]
    assert data["source"] == {"checkpoint": "x"}
    assert sum(row["count"] for row in data["errors"].values()) > 0
    assert len(data["worst_images"]) == 3
    assert set(data["curves"]) == {"0.5", "0.75"}
    parsed = Page(page.read_text())
    assert {"table", "svg", "polyline"} <= set(parsed.tags)
    assert sum(tag == "img" for tag in parsed.tags) == 3
    text = "".join(parsed.text)
    for name in ("circle", "classification", "Confusion", "Worst images", "AP50"):
        assert name in text


@pytest.mark.reliability(
    area="security",
    fault="class names and file names that are HTML, on the page of an evaluation",
    outcome="they are shown as text; the page has no script and loads nothing from elsewhere",
)
def test_names_are_no_html(in_memory, collect, tmp_path):
    dataset = in_memory([1, 2], [EVIL, "dog"], [(1, 0, (0, 0, 40, 40), 0, 0), (2, 1, (0, 0, 40, 40), 0, 0)])
    dataset.records.files[:] = b"<img src=x>.png"
    found = {1: [(1, 0.9, (0, 0, 40, 40)), (0, 0.8, (80, 60, 90, 90))], 2: [(0, 0.9, (0, 0, 40, 40))]}
    report = Report(EVIL, dataset, analyse(collect(dataset, found)), {EVIL: None}, {EVIL: f"n/a: {EVIL}"})
    _, page = write_report(report, tmp_path)
    parsed = Page(page.read_text())
    assert not {"script", "link", "iframe", "object", "base"} & set(parsed.tags)
    assert EVIL in "".join(parsed.text)
    assert "img" not in parsed.tags  # the images cannot be read: there is none, nor is a name one
    addresses = [v for _, name, v in parsed.attributes if name in ("src", "href", "action", "data")]
    assert addresses == []
    assert not any(name.startswith("on") for _, name, _ in parsed.attributes)
    policy = next(value for tag, name, value in parsed.attributes if tag == "meta" and name == "content")
    assert "default-src 'none'" in policy
    assert standard_html.escape(EVIL, quote=False)[:20] in page.read_text()
    assert "<script>alert(1)" in printed(report)  # a terminal shows it as it is, and takes no markup from it


def test_pages_load_nothing(shapes, tmp_path):
    _, page = write_report(evaluated(shapes), tmp_path)
    parsed = Page(page.read_text())
    addresses = [v for _, name, v in parsed.attributes if name in ("src", "href")]
    assert addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in addresses)
    assert "url(" not in page.read_text()
    assert "script" not in parsed.tags


def test_eighty_columns(in_memory, collect):
    names = [f"a class with a rather long name, {i}" for i in range(60)]
    objects = [(1, i, (0, 0, 10 + i, 40), 0, 0) for i in range(50)] * 30
    found = {1: [(i, 0.5, (0, 0, 10 + i, 40)) for i in range(20)]}
    dataset = in_memory([1], names, objects)
    text = printed(Report("x", dataset, analyse(collect(dataset, found))))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    columns = next(line for line in lines if "AP50" in line)
    assert columns.split() == ["class", "objects", "detected", "AP", "AP50", "AP75", "AR", "score", "F1"]
    rows = [line for line in lines if line.startswith(" a class")]
    assert len(rows) == 40
    assert len({len(row.rstrip()) for row in rows}) == 1  # aligned
    assert "and 20 more classes" in text
    assert "no detections" in text
    assert re.search(r"missed +\d+ +\+0\.\d+ ", text)


def test_nothing_at_all(in_memory, collect, tmp_path):
    dataset = in_memory([1], ["cat"])
    metric = CocoMetric()
    metric.start(dataset)
    values, reasons = metric.compute(), metric.reasons()
    report = Report("nothing", dataset, analyse(collect(dataset, {1: []})), values, reasons)
    numbers, page = write_report(report, tmp_path)
    assert json.loads(numbers.read_text())["reasons"]["AP"] == "n/a: no ground truth"
    text = "".join(Page(page.read_text()).text)
    assert "n/a: no ground truth" in text
    assert "There are no errors" in text
    assert "No score can be suggested" in " ".join(printed(report).split())


def test_pictures(shapes):
    report = evaluated(shapes)
    position = report.analysis.worst_images(1)[0].position
    picture = both_sides(shapes, report.analysis, position)
    assert picture.dtype == torch.uint8
    height, width = picture.shape[-2:]
    factor = min(560 / 80, 4)
    assert (height, width) == (60 * factor + 22, 2 * 80 * factor + 8)
    assert not (picture[:, 22:, : width // 2 - 4] == picture[:, 22:, width // 2 + 4 :]).all()


def test_wide_pictures_stand_one_above_the_other(tmp_path):
    shapes = ShapesDataset(root=tmp_path, length=3, size=(60, 200))
    report = evaluated(shapes)
    picture = both_sides(shapes, report.analysis, report.analysis.worst_images(1)[0].position)
    assert tuple(picture.shape[-2:]) == (2 * (60 * 4 + 22) + 6, 200 * 4)


def test_many_classes(in_memory, collect, tmp_path):
    names = [f"class {i}" for i in range(200)]
    objects = [(1, i, (0, 0, 20 + i % 50, 40), 0, 0) for i in range(0, 200, 2)]
    found = {1: [(i, 0.5, (0, 0, 20 + i % 50, 40)) for i in range(0, 200, 3)]}
    dataset = in_memory([1], names, objects)
    analysis = analyse(collect(dataset, found))
    numbers, page = write_report(Report("many", dataset, analysis), tmp_path)
    parsed = Page(page.read_text())
    assert sum(tag == "polyline" for tag in parsed.tags) == 40
    assert "The 30 classes with the most confusions" in "".join(parsed.text)
    data = json.loads(numbers.read_text())
    assert len(data["classes"]) == 200
    assert sum(row["count"] for row in data["confusion"]) == int(np.sum(analysis.confusion))
