"""Which detection finds which object, as COCO's evaluation decides it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from detcore_eval.flat import Flat
from detcore_eval.overlap import Pairs, candidates, overlapping

#: Pairs of object and detection that are held at once.
_PAIRS = 2_000_000


@dataclass(frozen=True)
class Matching:
    """What became of each detection, at T overlaps.

    Args:
        thresholds: The overlaps from which a detection finds an object.
        found: The object that a detection found, -1 for none.
        excused: Which detections found none but lie in a region to ignore.
        counted: Which detections count: the best ``max_dets`` of their class in an image.
        own_gt: The object of the detection's class that it overlaps most, -1 for none; not those to ignore.
        own_overlap: By how much.
        other_gt: Likewise of other classes.
        other_overlap: By how much.
        confused: The object of another class that a detection stands for in a confusion matrix, at the first
            of the overlaps: found by no detection of its own class; -1 for none.
    """

    thresholds: tuple[float, ...]
    found: Int[np.ndarray, "T D"]
    excused: Bool[np.ndarray, "T D"]
    counted: Bool[np.ndarray, "D"]
    own_gt: Int[np.ndarray, "D"]
    own_overlap: Float[np.ndarray, "D"]
    other_gt: Int[np.ndarray, "D"]
    other_overlap: Float[np.ndarray, "D"]


def match(flat: Flat, thresholds: tuple[float, ...], *, least: float = 0.1, max_dets: int = 100) -> Matching:
    """Matches the detections of each image and class with its objects.

    In the order of their scores, each detection takes the free object that it overlaps most, of those that it
    overlaps by the threshold at least; the later one of two alike. A detection that gets none is excused by
    a region to ignore if that part of its area lies in it.

    Args:
        flat: The dataset.
        thresholds: The overlaps.
        least: Lowest overlap that is of interest for what a detection is near to; at most the thresholds.
        max_dets: Detections per image and class that count.
    """
    size = len(flat.det_scores)
    rank = ranks(flat.det_image * max(len(flat.names), 1) + flat.det_labels)
    counted = rank < max_dets
    found = np.full((len(thresholds), size), -1, np.int64)
    excused = np.zeros((len(thresholds), size), np.bool_)
    near = {name: (np.full(size, -1, np.int64), np.zeros(size)) for name in ("own", "other")}
    for first, last in flat.chunks(_PAIRS):
        pairs = overlapping(flat, first, last, min(least, *thresholds))
        ignore = flat.gt_ignore[pairs.gt]
        own = flat.det_labels[pairs.det] == flat.gt_labels[pairs.gt]
        for name, chosen in (("own", own & ~ignore), ("other", ~own & ~ignore)):
            _nearest(_select(pairs, chosen), *near[name])
        may_find = _select(pairs, own & ~ignore & counted[pairs.det])
        may_excuse = _select(pairs, ignore & (own | flat.gt_any[pairs.gt]) & counted[pairs.det])
        for i, threshold in enumerate(thresholds):
            greedy(_select(may_find, may_find.overlap >= threshold), rank, found[i])
            excused[i, may_excuse.det[may_excuse.overlap >= threshold]] = True
    excused &= found < 0
    return Matching(thresholds, found, excused, counted, *near["own"], *near["other"])


def confuse(
    flat: Flat, free_det: Bool[np.ndarray, "D"], free_gt: Bool[np.ndarray, "G"], threshold: float
) -> Int[np.ndarray, "D"]:
    """The object that each free detection stands for, whatever its class; -1 for none.

    In the order of their scores, each takes the free object of its image that it overlaps most.

    Args:
        flat: The dataset.
        free_det: Detections that take part.
        free_gt: Objects that take part.
        threshold: Overlap from which a detection stands for an object.
    """
    rank = ranks(flat.det_image)
    found = np.full(len(flat.det_scores), -1, np.int64)
    for first, last in flat.chunks(_PAIRS):
        pairs = overlapping(flat, first, last, threshold)
        greedy(_select(pairs, free_det[pairs.det] & free_gt[pairs.gt]), rank, found)
    return found


def image_pairs(flat: Flat) -> Iterator[tuple[Int[np.ndarray, "P"], Int[np.ndarray, "P"]]]:
    """Every detection with every object of its image, some images at a time."""
    for first, last in flat.chunks(_PAIRS):
        yield candidates(flat, first, last)


def ranks(group: Int[np.ndarray, "D"]) -> Int[np.ndarray, "D"]:
    """How many come before each in its group."""
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(group) else np.zeros(0, np.int64)
    place = np.arange(len(group)) - np.repeat(starts, np.diff(np.r_[starts, len(group)]))
    result = np.empty(len(group), np.int64)
    result[order] = place
    return result


def greedy(pairs: Pairs, rank: Int[np.ndarray, "D"], found: Int[np.ndarray, "D"]) -> None:
    """Gives each detection, those of rank 0 first, the free object that it overlaps most.

    All detections of one rank are done at once: they are of different groups and so meet no common object.

    Args:
        pairs: Who may get whom.
        rank: Turn of each detection in its group.
        found: Filled with the objects.
    """
    order = np.lexsort((-pairs.gt, -pairs.overlap, pairs.det, rank[pairs.det]))
    det, gt = pairs.det[order], pairs.gt[order]
    ends = np.cumsum(np.bincount(rank[det])) if len(det) else np.zeros(0, np.int64)
    taken = np.zeros(int(gt.max()) + 1 if len(gt) else 0, np.bool_)
    start = 0
    for end in ends.tolist():
        mine, theirs = det[start:end], gt[start:end]
        free = ~taken[theirs]
        mine, theirs = mine[free], theirs[free]
        best = np.r_[True, mine[1:] != mine[:-1]] if len(mine) else np.zeros(0, np.bool_)
        found[mine[best]] = theirs[best]
        taken[theirs[best]] = True
        start = end


def _nearest(pairs: Pairs, gt: np.ndarray, overlap: np.ndarray) -> None:
    """Writes the object that each detection overlaps most, the first of two alike."""
    order = np.lexsort((pairs.gt, -pairs.overlap, pairs.det))
    det = pairs.det[order]
    best = np.r_[True, det[1:] != det[:-1]] if len(det) else np.zeros(0, np.bool_)
    gt[det[best]] = pairs.gt[order][best]
    overlap[det[best]] = pairs.overlap[order][best]


def _select(pairs: Pairs, chosen: np.ndarray) -> Pairs:
    return Pairs(pairs.det[chosen], pairs.gt[chosen], pairs.overlap[chosen])
