"""Reading of COCO annotation files, column by column."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detcore.errors import DataError
from detcore.structures import ClassMap
from detcore_data.classes import choose_classes, labels_of
from detcore_data.images import check_file, check_inside
from detcore_data.records import Annotations, Records
from detcore_data.segmentations import Segmentations

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class CocoContent:
    """A COCO file as records.

    Args:
        records: Images and annotations of the classes that were asked for.
        dangling: Number of annotations whose image is not listed.
        other_classes: Number of annotations of other classes.
    """

    records: Records
    dangling: int
    other_classes: int


def read_coco(path: Path, classes: Sequence[str] | None = None, with_masks: bool = False) -> CocoContent:
    """Reads an annotation file; opens no image.

    Args:
        path: The file.
        classes: Names of the classes that are wanted, in the order of their labels; all where None.
        with_masks: Whether segmentations are kept.

    Raises:
        DataError: The file is missing, no JSON, not of COCO's structure, or inconsistent; names the file, the
            record, the key and the value.
    """
    data = _load(check_file(path, "annotations"))
    class_map, all_ids = _classes(path, data["categories"], classes)
    images, annotations = (
        _Table(path, "images", data["images"]),
        _Table(path, "annotations", data["annotations"]),
    )
    image_ids = images.integers("id")
    image_of, listed = _find(path, image_ids, annotations.integers("image_id"))
    categories = annotations.integers("category_id")
    _check_categories(path, annotations, categories, all_ids)
    labels, asked = labels_of(class_map, categories)
    kept = listed & asked
    rows = (
        annotations.rows
        if kept.all()
        else [row for row, keep in zip(annotations.rows, kept, strict=True) if keep]
    )
    segmentations = _segmentations(path, rows) if with_masks else None
    records = Records.of(
        class_map,
        str(path),
        [check_inside(path, name) for name in images.texts("file_name")],
        image_ids,
        np.stack((images.integers("height", 0), images.integers("width", 0)), axis=1),
        image_of[kept],
        _annotations(annotations, labels, kept),
        segmentations,
    )
    return CocoContent(records, int((~listed).sum()), int((listed & ~asked).sum()))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without the cyclic garbage collector, which would walk millions of fresh dicts again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _load(path: Path) -> dict[str, Rows]:
    try:
        with _no_collection():
            data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as cause:
        raise DataError(
            f"{path}: not a JSON file ({cause}); is it damaged or only partly downloaded?"
        ) from cause
    form = "a COCO annotation file is an object with the keys 'images', 'annotations' and 'categories'"
    if not isinstance(data, dict):
        hint = " (a file of results?)" if isinstance(data, list) else ""
        raise DataError(f"{path}: {form}; this one is a {type(data).__name__}{hint}")
    for key in ("images", "annotations", "categories"):
        if key not in data:
            raise DataError(
                f"{path}: the key {key!r} is missing; {form}, this one has {sorted(map(str, data))}"
            )
        wrong = not isinstance(data[key], list) or set(map(type, data[key])) - {dict}
        if wrong:
            raise DataError(f"{path}: {key!r} should be a list of objects")
    return data


def _classes(path: Path, rows: Rows, wanted: Sequence[str] | None) -> tuple[ClassMap, np.ndarray]:
    table = _Table(path, "categories", rows)
    names, ids = table.texts("name"), table.integers("id")
    if len(set(ids.tolist())) < len(ids):
        twice = next(i for i in ids.tolist() if ids.tolist().count(i) > 1)
        raise DataError(f"{path}: two categories have the id {twice}")
    return choose_classes(str(path), names, ids.tolist(), wanted), ids


def _find(path: Path, image_ids: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the annotations' images, and which of them are listed."""
    order = np.argsort(image_ids, kind="stable")
    ordered = image_ids[order]
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        raise DataError(f"{path}: two images have the id {ordered[twice[0]]}")
    if not len(ordered):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.bool_)
    position = np.searchsorted(ordered, wanted).clip(max=len(ordered) - 1)
    return order[position], ordered[position] == wanted


def _check_categories(path: Path, table: _Table, categories: np.ndarray, known: np.ndarray) -> None:
    strange = np.flatnonzero(~np.isin(categories, known))
    if len(strange):
        row = int(strange[0])
        raise DataError(
            f"{path}: annotations[{row}] (id {table.rows[row].get('id')}) has category_id {categories[row]}, "
            f"which 'categories' does not list; it has the ids {known.tolist()}"
        )


def _annotations(table: _Table, labels: np.ndarray, kept: np.ndarray) -> Annotations:
    boxes = table.boxes("bbox")
    areas = table.numbers("area", boxes[:, 2] * boxes[:, 3])
    crowd = table.flags("iscrowd")
    return Annotations.of(boxes[kept], labels[kept], crowd[kept], areas=areas[kept], ids=table.ids()[kept])


def _segmentations(path: Path, rows: Rows) -> Segmentations:
    try:
        segmentations, has_mask = Segmentations.parse([row.get("segmentation") for row in rows])
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if not has_mask.all():
        row = rows[int(np.flatnonzero(~has_mask)[0])]
        raise DataError(
            f"{path}: annotation {row.get('id')} of image {row.get('image_id')} has no usable 'segmentation' "
            f"(a polygon of three points or more, or a run length), like {int((~has_mask).sum()) - 1} more; "
            "choose with_masks=False"
        )
    return segmentations


class _Table:
    """A list of JSON objects as typed columns; an error names the first wrong row.

    Args:
        path: The file, for messages.
        name: The list's key.
        rows: The objects.
    """

    def __init__(self, path: Path, name: str, rows: Rows) -> None:
        self.path, self.name, self.rows = path, name, rows

    def texts(self, key: str) -> list[str]:
        """A column of strings."""
        values = self._column(key)
        self._check(key, values, lambda value: type(value) is str, "a string")
        return values

    def integers(self, key: str, default: int | None = None) -> np.ndarray:
        """A column of integers; required where there is no default."""
        values = self._column(key) if default is None else self._with_default(key, default)
        try:
            if not set(map(type, values)) - {int}:
                return np.array(values, dtype=np.int64)
        except OverflowError:
            pass
        self._check(key, values, _is_integer, "an integer")
        return np.array([int(value) for value in values], dtype=np.int64)

    def flags(self, key: str) -> np.ndarray:
        """A column of 0 and 1, or of booleans; 0 where it is missing."""
        values = self._with_default(key, 0)
        self._check(key, values, lambda value: value in (0, 1), "0 or 1")
        return np.array(values, dtype=np.bool_)

    def ids(self) -> np.ndarray:
        """Ids for messages: positions where the rows have none, or some that are no integers."""
        values = [row.get("id") for row in self.rows]
        usable = all(_is_integer(value) for value in values)
        return np.array(values if usable else range(len(values)), dtype=np.int64)

    def numbers(self, key: str, default: np.ndarray) -> np.ndarray:
        """A column of numbers, with a default per row."""
        values = [row.get(key) for row in self.rows]
        if set(map(type, values)) - {int, float}:
            values = [default[i].item() if value is None else value for i, value in enumerate(values)]
            self._check(key, values, _is_number, "a number")
        try:
            return np.array(values, dtype=np.float64)
        except OverflowError:
            self._check(key, values, _is_number, "a number")
            raise

    def boxes(self, key: str) -> np.ndarray:
        """A column of four numbers each."""
        values = self._column(key)
        self._check(key, values, lambda value: type(value) is list and len(value) == 4, "a list [x, y, w, h]")
        flat = [number for value in values for number in value]
        if set(map(type, flat)) - {int, float}:
            self._check(key, values, lambda value: all(map(_is_number, value)), "a list of four numbers")
        try:
            return np.array(flat, dtype=np.float64).reshape(-1, 4)
        except OverflowError:
            self._check(key, values, lambda value: all(map(_is_number, value)), "a list of four numbers")
            raise

    def _with_default(self, key: str, default: int) -> list[Any]:
        values = [row.get(key, default) for row in self.rows]
        return [default if value is None else value for value in values] if None in values else values

    def _column(self, key: str) -> list[Any]:
        try:
            return [row[key] for row in self.rows]
        except KeyError:
            index = next(i for i, row in enumerate(self.rows) if key not in row)
            raise DataError(
                f"{self.path}: {self.name}[{index}] lacks the key {key!r}; it has {sorted(self.rows[index])}"
            ) from None

    def _check(self, key: str, values: Sequence[Any], valid: Callable[[Any], bool], what: str) -> None:
        for i, value in enumerate(values):
            if not valid(value):
                raise DataError(f"{self.path}: {self.name}[{i}].{key} should be {what}, got {value!r}")


def _is_integer(value: Any) -> bool:
    whole = type(value) is int or (type(value) is float and value.is_integer())
    return whole and -(2**63) <= value < 2**63


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)
