"""Everything about a detector's errors on a dataset, from its detections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from detcore_data import Collected
from jaxtyping import Float, Int

from detcore_eval.curves import RECALLS, Curve
from detcore_eval.errors import (
    ERRORS,
    MEANING,
    Errors,
    GtState,
    State,
    curves,
    find_errors,
    gains,
    gt_states,
    mean_ap,
    object_counts,
)
from detcore_eval.flat import Flat, IouType, side_by_side
from detcore_eval.matching import Matching, confuse, match

#: The overlaps that COCO averages over.
OVERLAPS = tuple(np.linspace(0.5, 0.95, 10).tolist())


@dataclass(frozen=True)
class ClassRow:
    """What is told of one class.

    Args:
        name: Of the class.
        objects: To be found.
        detections: That count, whatever their score.
        ap: Mean over COCO's ten overlaps; None without objects.
        ap50: At overlap 0.5.
        ap75: At overlap 0.75.
        recall: Mean over the ten overlaps (COCO's AR).
        threshold: The score with the best F1 at the analysis' overlap.
        f1: That F1.
        note: Why numbers are missing, or "".
    """

    name: str
    objects: int
    detections: int
    ap: float | None
    ap50: float | None
    ap75: float | None
    recall: float | None
    threshold: float | None
    f1: float | None
    note: str


@dataclass(frozen=True)
class ImageErrors:
    """The errors in one image.

    Args:
        position: Of the image in the dataset's records.
        wrong: Detections that are errors.
        missed: Objects that nothing is near to.
        types: How many of each type, those that occur.
    """

    position: int
    wrong: int
    missed: int
    types: Mapping[str, int]


@dataclass(frozen=True)
class Analysis:
    """What is right and what is wrong in the detections of a dataset.

    Numbers of errors are those among detections with a score of ``score`` at least; precision, recall and what
    an error type costs are over all detections.

    Args:
        flat: The dataset.
        matching: At ``overlap``, then at COCO's ten overlaps.
        errors: At ``overlap``.
        overlap: From which a detection finds an object.
        background: Below which it has nothing to do with it.
        score: Lowest score of the detections that are looked at one by one.
        suggested: The score with the best F1 over all classes; None where there is none.
    """

    flat: Flat
    matching: Matching
    errors: Errors
    overlap: float
    background: float
    score: float
    suggested: tuple[float, float] | None

    @cached_property
    def gt_state(self) -> Int[np.ndarray, "G"]:
        """What became of each object."""
        return gt_states(self.flat, self.errors, self.score)

    @cached_property
    def looked_at(self) -> np.ndarray:
        """Which detections have the score."""
        return self.flat.det_scores >= self.score

    @cached_property
    def gains(self) -> Mapping[str, float | None]:
        """What each error type costs; see :func:`~detcore_eval.errors.gains`."""
        return gains(self.flat, self.errors)

    def curves(self, overlap: float) -> list[Curve]:
        """A curve per class at one of the matching's overlaps."""
        i = int(np.argmin(np.abs(np.array(self.matching.thresholds) - overlap)))
        hit = self.matching.found[i] >= 0
        return curves(self.flat, hit, self.matching.counted & ~self.matching.excused[i])

    @cached_property
    def error_counts(self) -> Mapping[str, int]:
        """How many errors there are of each type."""
        states = self.errors.state[self.looked_at]
        counts = {state.name.lower(): int((states == state).sum()) for state in ERRORS}
        return counts | {"missed": int((self.gt_state == GtState.MISSED).sum())}

    @cached_property
    def classes(self) -> list[ClassRow]:
        """A row per class."""
        by_overlap = [self.curves(overlap) for overlap in OVERLAPS]
        own = self.curves(self.overlap)
        return [
            _class_row(name, [each[label] for each in by_overlap], own[label], self._ignored(label))
            for label, name in enumerate(self.flat.names)
        ]

    def _ignored(self, label: int) -> bool:
        mine = self.flat.gt_ignore & ~self.flat.gt_any & (self.flat.gt_labels == label)
        return bool(mine.any())

    @cached_property
    def confusion(self) -> Int[np.ndarray, "K+1 K+1"]:
        """Objects by class (row) and what was detected there (column); the last of each is background.

        Detections below the score, excused and uncounted ones are left out, and so are objects to ignore.
        """
        flat, size = self.flat, len(self.flat.names)
        true = (self.errors.state == State.TRUE) & self.looked_at
        wrong = np.isin(self.errors.state, ERRORS) & self.looked_at
        unfound = ~np.isin(self.gt_state, (GtState.FOUND, GtState.IGNORED))
        stands_for = np.where(true, self.errors.target, confuse(flat, wrong, unfound, self.overlap))
        matrix = np.zeros((size + 1, size + 1), np.int64)
        taken = (true | wrong) & (stands_for >= 0)
        np.add.at(matrix, (flat.gt_labels[stands_for[taken]], flat.det_labels[taken]), 1)
        alone = wrong & (stands_for < 0)
        np.add.at(matrix, (np.full(alone.sum(), size), flat.det_labels[alone]), 1)
        left = unfound.copy()
        left[stands_for[taken]] = False
        np.add.at(matrix, (flat.gt_labels[left], np.full(left.sum(), size)), 1)
        return matrix

    def worst_images(self, count: int) -> list[ImageErrors]:
        """Images with the most errors (wrong detections, and missed objects that nothing is near to).

        Of several with as many, those whose wrong detections have the highest scores come first.

        Args:
            count: How many; images without errors are never among them.
        """
        flat, images = self.flat, len(self.flat.positions)
        wrong = np.isin(self.errors.state, ERRORS) & self.looked_at
        missed = self.gt_state == GtState.MISSED
        wrong_in = np.bincount(flat.det_image[wrong], minlength=images)
        missed_in = np.bincount(flat.gt_image[missed], minlength=images)
        weight = np.bincount(flat.det_image[wrong], flat.det_scores[wrong], minlength=images)
        order = np.lexsort((np.arange(images), -weight, -(wrong_in + missed_in)))[:count]
        rows = []
        for image in order[(wrong_in + missed_in)[order] > 0].tolist():
            mine = self.errors.state[slice(*flat.det_offsets[image : image + 2])]
            mine = mine[self.looked_at[slice(*flat.det_offsets[image : image + 2])]]
            types = {state.name.lower(): int((mine == state).sum()) for state in ERRORS}
            types["missed"] = int(missed_in[image])
            found = {name: number for name, number in types.items() if number}
            row = ImageErrors(int(flat.positions[image]), int(wrong_in[image]), int(missed_in[image]), found)
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        matrix = self.confusion
        names = [*self.flat.names, "background"]
        return {
            "overlap": self.overlap,
            "background_overlap": self.background,
            "score": self.score,
            "suggested_score": None if self.suggested is None else self.suggested[0],
            "suggested_score_f1": None if self.suggested is None else self.suggested[1],
            "AP": mean_ap(self.curves(self.overlap)),
            "classes": [vars(row) for row in self.classes],
            "errors": {
                name: {"count": self.error_counts[name], "dAP": self.gains[name], "meaning": MEANING[name]}
                for name in MEANING
            },
            "dAP_of_all": {name: self.gains[name] for name in ("false positives", "false negatives")},
            "detections": {
                state.name.lower(): int((self.errors.state[self.looked_at] == state).sum()) for state in State
            },
            "objects": {state.name.lower(): int((self.gt_state == state).sum()) for state in GtState},
            "confusion": [
                {"object": names[i], "detected": names[j], "count": int(matrix[i, j])}
                for i, j in zip(*map(np.ndarray.tolist, matrix.nonzero()), strict=True)
            ],
            "curves": {
                f"{overlap:g}": {
                    name: None if (p := curve.precision()) is None else _rounded(p)
                    for name, curve in zip(self.flat.names, self.curves(overlap), strict=True)
                }
                for overlap in (0.5, 0.75)
            },
            "curve_recalls": _rounded(RECALLS),
        }


def analyse(
    collected: Collected,
    *,
    overlap: float = 0.5,
    background: float = 0.1,
    score: float | None = None,
    max_dets: int = 100,
    iou_type: IouType = "bbox",
    only_seen: bool = False,
) -> Analysis:
    """Looks for what is wrong in the detections of a dataset.

    Args:
        collected: Ground truth and detections; made with ``masks=True`` where masks are compared.
        overlap: From which a detection finds an object.
        background: Below which it has nothing to do with it.
        score: Lowest score of the detections that are looked at one by one; the one with the best F1 over all
            classes where None.
        max_dets: Detections per image and class that count.
        iou_type: What is compared.
        only_seen: Whether images that nothing was collected for are left out rather than empty.

    Raises:
        ValueError: The overlaps are not 0 < background < overlap <= 1.
    """
    if not 0 < background < overlap <= 1:
        raise ValueError(f"overlaps should be 0 < background < overlap <= 1, got {background} and {overlap}")
    flat = side_by_side(collected, iou_type, only_seen=only_seen)
    matching = match(flat, (overlap, *OVERLAPS), least=background, max_dets=max_dets)
    errors = find_errors(flat, matching, background=background)
    counted = matching.counted & ~matching.excused[0]
    objects = int(object_counts(flat).sum())
    suggested = Curve.of(flat.det_scores[counted], matching.found[0][counted] >= 0, objects).best_threshold()
    if score is None:
        score = 0.0 if suggested is None else suggested[0]
    return Analysis(flat, matching, errors, overlap, background, score, suggested)


def _class_row(name: str, by_overlap: list[Curve], own: Curve, ignored: bool) -> ClassRow:
    aps = [curve.average_precision() for curve in by_overlap]
    recalls = [curve.recall() for curve in by_overlap]
    best = own.best_threshold()
    if not own.objects:
        note = "n/a: all ground truth is ignored" if ignored else "n/a: no ground truth"
    else:
        note = "" if len(own.scores) else "no detections"
    return ClassRow(
        name=name,
        objects=own.objects,
        detections=len(own.scores),
        ap=_mean(aps),
        ap50=aps[0],
        ap75=aps[5],
        recall=_mean(recalls),
        threshold=None if best is None else best[0],
        f1=None if best is None else best[1],
        note=note,
    )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _rounded(values: Float[np.ndarray, "n"]) -> list[float]:
    return [round(value, 5) for value in values.tolist()]
