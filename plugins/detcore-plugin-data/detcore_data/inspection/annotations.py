"""Checks of the annotations of a split; none of them opens an image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from detcore_data.checks import SLACK, Policy, find_bad
from detcore_data.inspection.findings import Finding, Instance, Severity, instances
from detcore_data.inspection.formats import other_format
from detcore_data.records import Records

_OUTCOME: dict[Policy, str] = {
    "clip": "policy='clip' cuts them off",
    "drop": "policy='drop' leaves them out",
    "error": "policy='error' stops there",
}


def check_boxes(
    split: str, records: Records, sizes: Int[Tensor, "I 2"], policy: Policy, limit: int
) -> Iterator[Finding]:
    """Boxes that cannot be right, and whether they were meant in another format.

    Args:
        split: Its name.
        records: All that the files have.
        sizes: (h, w) of the images, zeros for unknown.
        policy: What training will do about bad boxes.
        limit: Largest number of examples.
    """
    degenerate, outside = find_bad(records, sizes)
    boxes = records.annotations.boxes
    flat = degenerate & ~((boxes[:, 2:] > 0).all(-1) & boxes.isfinite().all(-1))
    elsewhere = degenerate & ~flat
    severity: Severity = "error" if policy == "error" else "warning"
    left_out = "policy='error' stops there" if policy == "error" else "training leaves them out"
    for check, found, what, done in (
        ("degenerate-box", flat, "boxes without width or height, or with numbers that are none", left_out),
        ("box-outside-image", elsewhere, "boxes that lie entirely out of their image", left_out),
        (
            "box-over-border",
            outside,
            f"boxes that reach out of their image by more than {SLACK:g} pixel",
            _OUTCOME[policy],
        ),
    ):
        if found.any():
            rows = found.nonzero().flatten()
            details = [_with_size(records, sizes, int(row)) for row in rows[:limit]]
            remedy = f"correct them, or choose another policy: {done}"
            yield Finding(
                check, split, severity, len(rows), what, remedy, instances(records, rows[:limit], details)
            )
    yield from _formats(split, records, sizes, limit)


def _with_size(records: Records, sizes: Tensor, row: int) -> str:
    x, y, w, h = records.annotations.boxes[row].tolist()
    image = int(torch.searchsorted(records.offsets, row, right=True)) - 1
    height, width = sizes[image].tolist()
    of = f" in {width} x {height} pixels" if height and width else ""
    return f"x={x:g} y={y:g} w={w:g} h={h:g}{of}"


def _formats(split: str, records: Records, sizes: Tensor, limit: int) -> Iterator[Finding]:
    limits = sizes[records.image_of].flip(-1).double()
    rows = ((limits > 0).all(-1) & records.annotations.boxes.isfinite().all(-1)).nonzero().flatten()
    meant = other_format(records.annotations.boxes[rows], limits[rows])
    if meant:
        yield Finding(
            "box-format",
            split,
            "error",
            len(rows),
            f"boxes whose numbers look like {meant}",
            "convert the annotations: COCO has x, y, w, h, VOC and KITTI have x1, y1, x2, y2, in pixels",
            instances(records, rows[:limit]),
        )


def check_duplicates(split: str, records: Records, limit: int) -> Iterator[Finding]:
    """The same object annotated twice, and one box with two classes."""
    annotations = records.annotations
    rows = np.flatnonzero(~annotations.ignore.numpy() & annotations.boxes.isfinite().all(-1).numpy())
    boxes = annotations.boxes.numpy()[rows].round(3)
    labels, images = annotations.labels.numpy()[rows], records.image_of.numpy()[rows]
    order = np.lexsort((labels, *boxes.T[::-1], images))
    boxes, labels, images, rows = boxes[order], labels[order], images[order], rows[order]
    same_box = (images[1:] == images[:-1]) & (boxes[1:] == boxes[:-1]).all(-1)
    same_class = labels[1:] == labels[:-1]
    ids = annotations.ids.numpy()
    names = records.class_map.names
    for check, found, what, remedy in (
        (
            "duplicate-annotation",
            same_box & same_class,
            "annotations that repeat another one: same image, class and box",
            "remove the copies: each counts as an object of its own in loss and evaluation",
        ),
        (
            "two-classes-one-box",
            same_box & ~same_class,
            "boxes that are annotated with two classes",
            "keep one of them, or check that the object belongs to both classes",
        ),
    ):
        second = np.flatnonzero(found) + 1
        if len(second):
            details = [f"like annotation {ids[rows[i - 1]]} ({names[labels[i - 1]]})" for i in second[:limit]]
            examples = instances(records, torch.from_numpy(rows[second[:limit]]), details)
            yield Finding(check, split, "warning", len(second), what, remedy, examples)


def check_classes(split: str, records: Records, limit: int, *, trained_on: bool) -> Iterator[Finding]:
    """Classes without any object, and images without any."""
    annotations = records.annotations
    counted = annotations.labels[~annotations.ignore]
    counts = torch.bincount(counted, minlength=len(records.class_map))
    absent = [name for name, count in zip(records.class_map.names, counts.tolist(), strict=True) if not count]
    if absent:
        yield Finding(
            "class-without-objects",
            split,
            "warning" if trained_on else "note",
            len(absent),
            "classes that no object has",
            "leave them out of `classes`, or check their spelling"
            if trained_on
            else "their AP is not defined here",
            tuple(Instance(label=name, detail=repr(name)) for name in absent[:limit]),
        )
    objects = torch.bincount(records.image_of[~annotations.ignore], minlength=len(records))
    empty = (objects == 0).nonzero().flatten()
    if len(empty):
        yield Finding(
            "empty-image",
            split,
            "note",
            len(empty),
            "images without objects",
            "they are background to train on; filter_empty=True leaves them out",
            tuple(Instance(records[i].file, i, detail="") for i in empty[:limit].tolist()),
        )


def check_listing(split: str, records: Records, limit: int) -> Iterator[Finding]:
    """Image files that are listed more than once."""
    order = np.argsort(records.files, kind="stable")
    again = np.sort(order[1:][records.files[order[1:]] == records.files[order[:-1]]])
    if len(again):
        examples = tuple(Instance(records[int(i)].file, int(i), detail="") for i in again[:limit])
        yield Finding(
            "image-listed-twice",
            split,
            "warning",
            len(again),
            "image files that are listed more than once",
            "merge their annotations under one image: as it is, each copy lacks the objects of the other",
            examples,
        )
