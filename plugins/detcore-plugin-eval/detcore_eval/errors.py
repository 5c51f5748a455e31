"""Why detections are wrong: the error types of TIDE (Bolya et al. 2020, arXiv 2008.08115)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Bool, Float, Int

from detcore_eval.curves import Curve
from detcore_eval.flat import Flat
from detcore_eval.matching import Matching


class State(IntEnum):
    """What a detection is. Each has exactly one."""

    TRUE = 0
    LOCALISATION = 1
    CLASSIFICATION = 2
    DUPLICATE = 3
    BACKGROUND = 4
    BOTH = 5
    #: It lies in a region to ignore.
    EXCUSED = 6
    #: There are ``max_dets`` better ones of its class in the image.
    UNCOUNTED = 7


class GtState(IntEnum):
    """What became of an object. Each has exactly one."""

    FOUND = 0
    MISSED = 1
    #: Not found, but a detection was near that is a localisation or a classification error.
    NEARLY = 2
    IGNORED = 3


#: States that are errors, in the order in which they are told.
ERRORS = (
    State.CLASSIFICATION,
    State.LOCALISATION,
    State.BOTH,
    State.DUPLICATE,
    State.BACKGROUND,
)
#: What each error means.
MEANING = {
    "classification": "right place, wrong class",
    "localisation": "right class, box too far off",
    "both": "wrong class, and box too far off",
    "duplicate": "the object was found already",
    "background": "there is no object",
    "missed": "neither found nor nearly found",
}


@dataclass(frozen=True)
class Errors:
    """The state of every detection.

    Args:
        state: One of :class:`State` each.
        target: The object that a localisation or classification error is about, that a true detection found;
            -1 for others.
        found_by: The score of the detection that found an object, NaN where none did.
    """

    state: Int[np.ndarray, "D"]
    target: Int[np.ndarray, "D"]
    found_by: Float[np.ndarray, "G"]


def find_errors(flat: Flat, matching: Matching, *, background: float = 0.1) -> Errors:
    """Tells what each detection is, at the matching's first overlap.

    A detection that finds no object and is not excused is, by the first of these that holds, an error of
    *localisation* (it overlaps an object of its class by ``background`` at least but not by the threshold),
    *classification* (it overlaps one of another class by the threshold), *duplicate* (it overlaps one of its
    class by the threshold, which another one with a better score has found), *background* (it overlaps none
    by ``background``), or *both* (it overlaps one of another class, but not by the threshold).

    Args:
        flat: The dataset.
        matching: Made with ``least`` of at most ``background``.
        background: Overlap below which a detection has nothing to do with an object.
    """
    threshold, found = matching.thresholds[0], matching.found[0]
    own, other = matching.own_overlap, matching.other_overlap
    rules = (
        (~matching.counted, State.UNCOUNTED),
        (found >= 0, State.TRUE),
        (matching.excused[0], State.EXCUSED),
        ((own >= background) & (own < threshold), State.LOCALISATION),
        (other >= threshold, State.CLASSIFICATION),
        (own >= threshold, State.DUPLICATE),
        (np.maximum(own, other) < background, State.BACKGROUND),
    )
    state = np.select([rule for rule, _ in rules], [int(s) for _, s in rules], int(State.BOTH))
    target = np.full(len(state), -1, np.int64)
    for value, gt in (
        (State.TRUE, found),
        (State.LOCALISATION, matching.own_gt),
        (State.CLASSIFICATION, matching.other_gt),
    ):
        target[state == value] = gt[state == value]
    found_by = np.full(len(flat.gt_labels), np.nan)
    true = state == State.TRUE
    found_by[target[true]] = flat.det_scores[true]
    return Errors(state, target, found_by)


def gt_states(flat: Flat, errors: Errors, score: float) -> Int[np.ndarray, "G"]:
    """What became of each object when detections below a score are dropped: :class:`GtState` each.

    Args:
        flat: The dataset.
        errors: The states of the detections; they are the same whatever is dropped.
        score: Lowest score that is kept.
    """
    found = errors.found_by >= score
    near = np.zeros(len(found), np.bool_)
    blames = np.isin(errors.state, (State.LOCALISATION, State.CLASSIFICATION)) & (flat.det_scores >= score)
    near[errors.target[blames]] = True
    rules = (flat.gt_ignore, found, near)
    states = (int(GtState.IGNORED), int(GtState.FOUND), int(GtState.NEARLY))
    return np.select(list(rules), list(states), int(GtState.MISSED))


def curves(
    flat: Flat,
    hit: Bool[np.ndarray, "D"],
    kept: Bool[np.ndarray, "D"],
    labels: Int[np.ndarray, "D"] | None = None,
    objects: Int[np.ndarray, "K"] | None = None,
) -> list[Curve]:
    """A curve per class.

    Args:
        flat: The dataset.
        hit: Detections that found an object.
        kept: Detections that count.
        labels: Classes of the detections, where they are not those of the dataset.
        objects: Number of objects per class, where they are not those of the dataset.
    """
    labels = flat.det_labels if labels is None else labels
    objects = object_counts(flat) if objects is None else objects
    order = np.argsort(labels[kept], kind="stable")
    index = np.flatnonzero(kept)[order]
    ends = np.cumsum(np.bincount(labels[index], minlength=len(flat.names)))
    parts = np.split(index, ends[:-1])
    return [
        Curve.of(flat.det_scores[part], hit[part], int(count))
        for part, count in zip(parts, objects, strict=True)
    ]


def object_counts(flat: Flat) -> Int[np.ndarray, "K"]:
    """Number of objects to find per class."""
    return np.bincount(flat.gt_labels[~flat.gt_ignore], minlength=len(flat.names))


def mean_ap(all_curves: list[Curve]) -> float | None:
    """The mean over the classes that have objects; None where none has."""
    values = [ap for curve in all_curves if (ap := curve.average_precision()) is not None]
    return sum(values) / len(values) if values else None


def gains(flat: Flat, errors: Errors) -> Mapping[str, float | None]:
    """By how much the AP at the matching's overlap rises if one type of error is put right.

    Errors of localisation and classification become true, the best of them for each object that nothing
    found; the others go, as do those of the other types. Missed objects are no longer to be found; a class
    of which nothing is left to find then counts as 1. Beside the six types, ``false positives`` (all wrong
    detections go) and ``false negatives`` (no object is to be found but those that are).

    Args:
        flat: The dataset.
        errors: The states of the detections.

    Returns:
        The differences by type; None where there is no object at all.
    """
    hit = errors.state == State.TRUE
    wrong = np.isin(errors.state, ERRORS)
    base = mean_ap(curves(flat, hit, hit | wrong))
    names = (*MEANING, "false positives", "false negatives")
    if base is None:
        return dict.fromkeys(names)
    fixed: dict[str, list[Curve]] = {}
    for state in ERRORS:
        mended, labels = _mended(flat, errors, state)
        kept = hit | (wrong & (errors.state != state)) | mended
        fixed[state.name.lower()] = curves(flat, hit | mended, kept, labels)
    missed = gt_states(flat, errors, -np.inf) == GtState.MISSED
    lost = np.bincount(flat.gt_labels[missed], minlength=len(flat.names))
    found = np.bincount(flat.gt_labels[~np.isnan(errors.found_by)], minlength=len(flat.names))
    fixed["missed"] = curves(flat, hit, hit | wrong, objects=object_counts(flat) - lost)
    fixed["false positives"] = curves(flat, hit, hit)
    fixed["false negatives"] = curves(flat, hit, hit | wrong, objects=found)
    has_objects = object_counts(flat) > 0
    return {name: _mean_of(fixed[name], has_objects) - base for name in names}


def _mended(flat: Flat, errors: Errors, state: State) -> tuple[np.ndarray, np.ndarray]:
    """Which errors of a type become true, and the classes of all detections then."""
    mended, labels = np.zeros(len(errors.state), np.bool_), flat.det_labels
    if state not in (State.LOCALISATION, State.CLASSIFICATION):
        return mended, labels
    which = np.flatnonzero(errors.state == state)
    which = which[np.isnan(errors.found_by[errors.target[which]])]
    order = which[np.lexsort((which, -flat.det_scores[which], errors.target[which]))]
    target = errors.target[order]
    mended[order[np.r_[True, target[1:] != target[:-1]] if len(order) else np.zeros(0, np.bool_)]] = True
    if state == State.CLASSIFICATION:
        labels = labels.copy()
        labels[mended] = flat.gt_labels[errors.target[mended]]
    return mended, labels


def _mean_of(all_curves: list[Curve], has_objects: np.ndarray) -> float:
    values = [curve.average_precision() for curve, has in zip(all_curves, has_objects, strict=True) if has]
    return sum(1.0 if value is None else value for value in values) / len(values)
