"""Ground truth and detections as sorted columns, and how much they overlap."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from detcore_data.collected import Found
from detcore_data.records import Records
from detcore_data.segmentations import quiet

#: Pairs whose overlap is computed at once.
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Truth:
    """Objects G, sorted by group: a group is a class in an image, numbered class by class, images by id.

    Args:
        groups: [G].
        boxes: x, y, w, h in float64 [G, 4].
        areas: [G].
        crowd: Which are regions to ignore [G].
        masks: COCO's run lengths; None where boxes are compared.
    """

    groups: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    masks: Sequence[Mapping[str, Any]] | None


@dataclass(frozen=True)
class Detected:
    """Detections D, sorted by group and, the best first, by score.

    Args:
        groups: As in :class:`Truth`.
        boxes: x, y, w, h in float64 [D, 4].
        areas: Of the masks where these are compared [D].
        scores: [D].
        ranks: Position of each in its group [D].
        masks: COCO's run lengths; None where boxes are compared.
    """

    groups: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray
    masks: Sequence[Mapping[str, Any]] | None


@dataclass(frozen=True)
class Pairs:
    """Detections and objects of one group that overlap enough, sorted by detection.

    Args:
        detected: Rows in :class:`Detected` [P].
        truth: Rows in :class:`Truth` [P].
        overlaps: [P].
    """

    detected: np.ndarray
    truth: np.ndarray
    overlaps: np.ndarray


def ranges(first: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The numbers ``first[i]``, ``first[i] + 1``, ..., ``counts[i]`` of them, for each i, in one array."""
    ends = np.cumsum(counts)
    numbers: np.ndarray = np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - ends + counts, counts)
    return numbers


def truth_of(records: Records, masks: bool, class_agnostic: bool) -> Truth:
    """The objects of a split. Regions of any class stand in each class.

    Args:
        records: The split.
        masks: Whether masks are compared.
        class_agnostic: Whether all are of one class.
    """
    annotations = records.annotations
    classes = 1 if class_agnostic else len(records.class_map)
    any_class = annotations.any_class.numpy()
    times = np.where(any_class, classes, 1)
    rows = np.repeat(np.arange(len(annotations)), times)
    labels = np.where(any_class[rows], ranges(np.zeros_like(times), times), annotations.labels.numpy()[rows])
    labels = np.zeros_like(labels) if class_agnostic else labels
    image_of = records.image_of.numpy()
    groups = labels * len(records) + np.argsort(np.argsort(records.image_ids.numpy()))[image_of[rows]]
    order = np.argsort(groups, kind="stable")
    order = order[((labels >= 0) & (labels < classes))[order]]
    groups, rows = groups[order], rows[order]
    encoded: list[dict[str, Any]] | None = None
    if masks and records.segmentations is not None:
        sizes = records.sizes[records.image_of].tolist()
        segments = annotations.segments.tolist()
        with quiet():
            runs = [
                records.segmentations.encode(s, (h, w)) for s, (h, w) in zip(segments, sizes, strict=True)
            ]
        encoded = [runs[row] for row in rows]
    boxes, areas, crowd = (
        column.numpy()[rows] for column in (annotations.boxes, annotations.areas, annotations.ignore)
    )
    return Truth(groups, boxes, areas, crowd, encoded)


def detected_of(
    records: Records, found: Mapping[int, Found], masks: bool, class_agnostic: bool, limit: int
) -> Detected:
    """The best detections of every class in every image.

    Args:
        records: The split; detections in other images are left out.
        found: Detections by image id, in the pixels of the files.
        masks: Whether masks are compared.
        class_agnostic: Whether all are of one class.
        limit: How many detections of a class count in an image.
    """
    place = {image_id: i for i, image_id in enumerate(sorted(records.image_ids.tolist()))}
    items = {place[image_id]: item for image_id, item in found.items() if image_id in place}
    values = list(items.values())
    corners = torch.cat([torch.zeros(0, 4), *(item.boxes for item in values)]).double().numpy()
    scores = torch.cat([torch.zeros(0), *(item.scores for item in values)]).double().numpy()
    labels = torch.cat([torch.zeros(0, dtype=torch.int64), *(item.labels for item in values)]).numpy()
    images = np.repeat(np.array(list(items), dtype=np.int64), [len(item) for item in values])
    groups = images if class_agnostic else labels * len(records) + images
    order = np.lexsort((-scores, groups))  # stable: of equal scores, the earlier one is first
    ranks = np.arange(len(order)) - np.searchsorted(groups[order], groups[order])
    order, ranks = order[ranks < limit], ranks[ranks < limit]
    # Subtracted in float64, as one would after writing the corners to a file.
    boxes = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), axis=1)[order]
    areas, runs = boxes[:, 2] * boxes[:, 3], None
    if masks:
        every = [run for item in values for run in item.runs or ()]
        runs = [every[row] for row in order]
        areas = _mask_areas(runs)
    return Detected(groups[order], boxes, areas, scores[order], ranks, runs)


def _mask_areas(runs: Sequence[Mapping[str, Any]]) -> np.ndarray:
    # some releases of pycocotools fail on more than 255 masks at once
    with quiet():
        parts = [coco_mask.area(list(runs[i : i + 255])) for i in range(0, len(runs), 255)]
    return np.concatenate([np.zeros(0), *parts])


def pairs_of(truth: Truth, detected: Detected, least: float) -> Pairs:
    """What overlaps by ``least`` or more; with regions to ignore, by this part of the detection."""
    first = np.searchsorted(truth.groups, detected.groups)
    counts = np.searchsorted(truth.groups, detected.groups, side="right") - first
    rows = np.flatnonzero(counts)
    pairs = _mask_pairs if truth.masks is not None else _box_pairs
    nothing = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    with quiet():
        found = [nothing, *pairs(truth, detected, rows, first[rows], counts[rows], least)]
    columns = (np.concatenate([getattr(part, field.name) for part in found]) for field in fields(Pairs))
    return Pairs(*columns)


def _box_pairs(
    truth: Truth, detected: Detected, rows: np.ndarray, first: np.ndarray, counts: np.ndarray, least: float
) -> Iterator[Pairs]:
    part = np.cumsum(counts) // _CHUNK
    for chunk in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(part)) + 1):
        d, g = np.repeat(rows[chunk], counts[chunk]), ranges(first[chunk], counts[chunk])
        overlaps = _box_overlaps(detected.boxes[d], truth.boxes[g], truth.crowd[g])
        kept = overlaps >= least
        yield Pairs(d[kept], g[kept], overlaps[kept])


def _box_overlaps(ours: np.ndarray, theirs: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Overlaps of boxes x, y, w, h, in pycocotools' steps, so that they are rounded alike."""
    high = np.minimum(ours[:, :2] + ours[:, 2:], theirs[:, :2] + theirs[:, 2:])
    sides = high - np.maximum(ours[:, :2], theirs[:, :2])
    common = sides[:, 0] * sides[:, 1]
    area = ours[:, 2] * ours[:, 3]
    union = np.where(crowd, area, area + theirs[:, 2] * theirs[:, 3] - common)
    overlaps: np.ndarray = np.zeros_like(common)
    np.divide(common, union, out=overlaps, where=(sides > 0).all(1))
    return overlaps


def _mask_pairs(
    truth: Truth, detected: Detected, rows: np.ndarray, first: np.ndarray, counts: np.ndarray, least: float
) -> Iterator[Pairs]:
    masks, theirs = detected.masks or (), truth.masks or ()
    crowd = truth.crowd.tolist()
    groups = np.append(np.flatnonzero(np.diff(first, prepend=-1)), len(rows))  # those of one group have the
    for begin, end in itertools.pairwise(groups.tolist()):  # same objects, and so the same ``first``
        d, g = rows[begin:end], np.arange(first[begin], first[begin] + counts[begin])
        flags = [int(crowd[i]) for i in g]
        overlaps = coco_mask.iou([masks[i] for i in d], [theirs[i] for i in g], flags).reshape(-1)
        d, g = np.repeat(d, len(g)), np.tile(g, len(d))
        kept = overlaps >= least
        yield Pairs(d[kept], g[kept], overlaps[kept])
