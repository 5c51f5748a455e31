"""COCO's matching of detections with objects, and precision and recall, for all groups at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detcore_data.coco_columns import Detected, Pairs, Truth, pairs_of, ranges

#: The IoUs and recalls of COCO's program.
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
#: Least and greatest area of all, small, medium and large objects; both ends are included.
AREAS = np.array([[0.0, 1e10], [0.0, 32.0**2], [32.0**2, 96.0**2], [96.0**2, 1e10]])

#: Detections that are matched at once, and a number above that of pairs of any detection.
_CHUNK, _IGNORED, _NONE = 1 << 14, 1 << 29, 1 << 30


@dataclass(frozen=True)
class Matches:
    """What became of those detections C that overlap an object enough to be matched.

    Args:
        rows: Rows in :class:`~detcore_data.coco_columns.Detected`, rising [C].
        real: Whether each is matched with an object that counts, by IoU and area [C, T, A].
        ignored: Whether with one that does not count [C, T, A].
    """

    rows: np.ndarray
    real: np.ndarray
    ignored: np.ndarray


def curves(
    truth: Truth, detected: Detected, images: int, classes: int, max_dets: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Precision [T, R, K, A] for the last of ``max_dets`` and recall [T, K, A, M], as pycocotools has them.

    Args:
        truth: The objects.
        detected: The detections, no more of a group than the last of ``max_dets``.
        images: Number of images, by which groups are numbered.
        classes: Number of classes K.
        max_dets: Numbers of detections M.
    """
    counted = ~truth.crowd[:, None] & _inside(truth.areas)
    matches = match(truth, detected, pairs_of(truth, detected, THRESHOLDS[0]), ~counted)
    objects = np.zeros((classes, len(AREAS)), dtype=np.int64)
    np.add.at(objects, truth.groups // max(images, 1), counted)
    labels = detected.groups // max(images, 1)
    order = np.lexsort((-detected.scores, labels))  # stable, so that of equal scores the first image is first
    inside, starts = _inside(detected.areas)[order], np.searchsorted(labels[order], np.arange(classes + 1))
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    position = position[matches.rows]
    by_score = np.argsort(position)
    edges = np.searchsorted(position[by_score], starts)
    precisions = np.full((len(THRESHOLDS), len(RECALLS), classes, len(AREAS)), -1.0)
    recalls = np.full((len(THRESHOLDS), classes, len(AREAS), len(max_dets)), -1.0)
    for label in np.flatnonzero(objects.any(1)).tolist():
        mine = by_score[edges[label] : edges[label + 1]]
        real, place = matches.real[mine], position[mine] - starts[label]
        own = inside[starts[label] : starts[label + 1]]
        # Those inside the area are wrong unless they are matched; those outside it are never wrong.
        excused = (real | matches.ignored[mine]) & own[place][:, None, :]
        wrong = np.cumsum(own, axis=0)[place][:, None, :] - np.cumsum(excused, axis=0)
        present = np.flatnonzero(objects[label])
        for area in present.tolist():
            precisions[:, :, label, area] = _precision(
                real[..., area], wrong[..., area], objects[label, area]
            )
        ranks = detected.ranks[matches.rows[mine]]
        for m, limit in enumerate(max_dets):
            hits = real[ranks < limit].sum(axis=0)[:, present]
            recalls[:, label, present, m] = hits / objects[label, present]
    return precisions, recalls


def match(truth: Truth, detected: Detected, pairs: Pairs, ignored: np.ndarray) -> Matches:
    """Gives each detection, the best of a group first, the object that it overlaps most and nobody has.

    Objects that count go before those that do not; of equal overlaps, the later object is taken; crowd
    regions can be taken by many.

    Args:
        truth: The objects.
        detected: The detections.
        pairs: Which of them overlap.
        ignored: Objects that do not count, by area [G, A].
    """
    order = np.lexsort((-pairs.truth, -pairs.overlaps, pairs.detected))
    objects, overlaps = pairs.truth[order], pairs.overlaps[order]
    rows, first, counts = np.unique(pairs.detected, return_index=True, return_counts=True)
    groups = detected.groups[rows]
    turns = np.arange(len(rows)) - np.searchsorted(groups, groups)
    shape = (len(THRESHOLDS), len(AREAS))
    real, excused = np.zeros((len(rows), *shape), np.bool_), np.zeros((len(rows), *shape), np.bool_)
    taken = np.zeros((len(truth.groups), *shape), np.bool_)
    by_turn = np.argsort(turns, kind="stable")
    bounds = np.searchsorted(turns[by_turn], np.arange(turns.max(initial=-1) + 2)).tolist()
    for begin, end in itertools.pairwise(bounds):
        for start in range(begin, end, _CHUNK):  # no two of one turn are of one group
            now = by_turn[start : min(start + _CHUNK, end)]
            mine = ranges(first[now], counts[now])
            theirs = objects[mine]
            free = ~taken[theirs] | truth.crowd[theirs, None, None]
            free &= (overlaps[mine, None] >= THRESHOLDS)[:, :, None]
            places = ranges(np.zeros_like(now), counts[now])[:, None] + ignored[theirs] * _IGNORED
            choices = np.where(free, places[:, None, :], _NONE)
            best = np.minimum.reduceat(choices, np.cumsum(counts[now]) - counts[now], axis=0)
            real[now], excused[now] = best < _IGNORED, (best >= _IGNORED) & (best < _NONE)
            d, t, a = np.nonzero(best < _NONE)
            taken[objects[first[now][d] + best[d, t, a] % _IGNORED], t, a] = True
    return Matches(rows, real, excused)


def _inside(areas: np.ndarray) -> np.ndarray:
    return (areas[:, None] >= AREAS[:, 0]) & (areas[:, None] <= AREAS[:, 1])


def _precision(real: np.ndarray, wrong: np.ndarray, objects: int) -> np.ndarray:
    """Precision at each recall [T, R]: the best at this recall or a higher one; 0 where it is not reached.

    Args:
        real: Whether a detection is right [C, T]; the best first.
        wrong: How many up to it are wrong [C, T].
        objects: How many there are to find.
    """
    right = np.cumsum(real, axis=0)
    c, t = np.nonzero(real)
    values = np.zeros((real.shape[1], objects + 1))  # by the number of objects found; the last is never found
    found = right[c, t]
    values[t, found - 1] = found / (wrong[c, t] + found + np.spacing(1))
    highest = np.maximum.accumulate(values[:, ::-1], axis=1)[:, ::-1]
    return highest[:, np.searchsorted(np.arange(1, objects + 1) / objects, RECALLS)]
