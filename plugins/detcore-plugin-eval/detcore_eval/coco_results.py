"""Detections in a file, in the format of COCO's results."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detcore_data import Collected
from detcore_data.records import Records
from detcore_data.segmentations import Segmentations

from detcore.errors import DataError
from detcore.structures import ImageDetections

#: Images whose detections are handed over at once.
_BATCH = 64

Sink = Callable[[Sequence[int], Sequence[ImageDetections]], None]


def write_results(collected: Collected, path: Path) -> None:
    """Writes what was collected; makes the folder where it does not exist.

    Args:
        collected: The detections.
        path: The JSON file: a list of ``image_id``, ``category_id`` (as in the dataset's files), ``bbox`` (x, y,
            w, h), ``score``, and ``segmentation`` where there are masks.
    """
    ids = collected.records.class_map.ids
    rows: list[dict[str, Any]] = []
    for image_id, found in collected.found.items():
        corners = found.boxes.double()
        boxes = torch.cat((corners[:, :2], corners[:, 2:] - corners[:, :2]), dim=1).tolist()
        for i, (box, score, label) in enumerate(
            zip(boxes, found.scores.tolist(), found.labels.tolist(), strict=True)
        ):
            row = {"image_id": image_id, "category_id": ids[label], "bbox": box, "score": score}
            if found.runs is not None:
                run = found.runs[i]
                row["segmentation"] = {"size": list(run["size"]), "counts": run["counts"].decode("ascii")}
            rows.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows) + "\n", encoding="utf-8")


def read_results(path: Path, records: Records, sink: Sink, *, masks: bool = False) -> int:
    """Hands the detections of a file to a metric, image by image; images that it lacks have none.

    Args:
        path: The JSON file; see :func:`write_results`.
        records: The dataset's ground truth: its ids of images and classes are those of the file.
        sink: Called with image ids and detections; a metric's ``update``.
        masks: Whether masks are needed.

    Returns:
        The number of detections.

    Raises:
        DataError: The file is missing or not of that format, or has an id that the dataset does not have; names
            the row, the key and the value.
    """
    rows = _read(path)
    labels = {number: label for label, number in enumerate(records.class_map.ids)}
    known = {image_id: i for i, image_id in enumerate(records.image_ids.tolist())}
    by_image: dict[int, list[int]] = {image_id: [] for image_id in known}
    for i, row in enumerate(rows):
        by_image[_known_id(path, i, row, "image_id", known, "image ids")].append(i)
        _known_id(path, i, row, "category_id", labels, f"class ids ({_classes(records)})")
    batch: list[tuple[int, ImageDetections]] = []
    for image_id, mine in by_image.items():
        some = {i: rows[i] for i in mine}
        size = records[known[image_id]].size
        batch.append((image_id, _detections(path, some, labels, size if masks else None, masks)))
        if len(batch) == _BATCH:
            _hand_over(batch, sink)
    _hand_over(batch, sink)
    return len(rows)


def _hand_over(batch: list[tuple[int, ImageDetections]], sink: Sink) -> None:
    if batch:
        sink([image_id for image_id, _ in batch], [found for _, found in batch])
    batch.clear()


def _classes(records: Records) -> str:
    pairs = zip(records.class_map.ids, records.class_map.names, strict=True)
    return ", ".join(f"{number} {name}" for number, name in list(pairs)[:10])


def _read(path: Path) -> list[Mapping[str, Any]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as cause:
        raise DataError(f"{path}: not a JSON file ({cause})") from cause
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(
            f"{path}: should be a list of detections with image_id, category_id, bbox and score, as COCO's results"
        )
    return rows


def _known_id(
    path: Path, i: int, row: Mapping[str, Any], key: str, known: Mapping[int, int], what: str
) -> int:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value not in known:
        some = sorted(known)[:3]
        raise DataError(
            f"{path}: detection {i} has the {key} {value!r}, which is none of the dataset's {len(known)} {what}; "
            f"they begin with {some}: is it the right dataset?"
        )
    return value


def _detections(
    path: Path,
    rows: Mapping[int, Mapping[str, Any]],
    labels: Mapping[int, int],
    size: tuple[int, int] | None,
    masks: bool,
) -> ImageDetections:
    boxes = torch.tensor([_numbers(path, i, row) for i, row in rows.items()]).reshape(-1, 5)
    corners = boxes[:, :4].double()
    corners[:, 2:] += corners[:, :2]
    dense = None
    if masks:
        if size is None:
            raise DataError(f"{path}: comparing masks needs the height and width of every image")
        dense = torch.from_numpy(_masks(path, rows, size))
    return ImageDetections(
        corners.float(),
        boxes[:, 4],
        torch.tensor([labels[row["category_id"]] for row in rows.values()], dtype=torch.int64),
        dense,
    )


def _numbers(path: Path, i: int, row: Mapping[str, Any]) -> list[float]:
    box, score = row.get("bbox"), row.get("score")
    values: list[Any] = [*box, score] if isinstance(box, list) else [box]
    good = all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in values)
    if len(values) != 5 or not good:
        raise DataError(
            f"{path}: detection {i} should have a bbox of four numbers x, y, w, h and a score, got {box!r} and "
            f"{score!r}"
        )
    return [float(value) for value in values]


def _masks(path: Path, rows: Mapping[int, Mapping[str, Any]], size: tuple[int, int]) -> np.ndarray:
    dense = np.zeros((len(rows), *size), np.bool_)
    segmentations, has_mask = Segmentations.parse([row.get("segmentation") for row in rows.values()])
    for place, (i, has) in enumerate(zip(rows, has_mask.tolist(), strict=True)):
        if not has:
            raise DataError(f"{path}: detection {i} has no segmentation, but masks are to be compared")
        try:
            dense[place] = segmentations.dense(place, size)
        except DataError as error:
            raise DataError(f"{path}: detection {i}: {error}") from error
    return dense
