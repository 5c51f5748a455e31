"""Precision and recall over the score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

#: Recalls that COCO samples precision at.
RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class Curve:
    """Precision and recall of one class, after each of its detections that count, the best first.

    Args:
        scores: Of the detections.
        true: Running number of objects found.
        false: Running number of detections that found none.
        objects: Number of objects to find.
    """

    scores: Float[np.ndarray, "n"]
    true: Int[np.ndarray, "n"]
    false: Int[np.ndarray, "n"]
    objects: int

    @classmethod
    def of(cls, scores: Float[np.ndarray, "n"], hit: Bool[np.ndarray, "n"], objects: int) -> Curve:
        """The curve of detections in any order (ties keep theirs).

        Args:
            scores: 0..1.
            hit: Which found an object.
            objects: Number of objects to find.
        """
        order = np.argsort(-scores, kind="stable")
        hit = hit[order]
        return cls(scores[order], np.cumsum(hit), np.cumsum(~hit), objects)

    def precision(self) -> Float[np.ndarray, "101"] | None:
        """Greatest precision at each recall of :data:`RECALLS` or above; None without objects."""
        if not self.objects:
            return None
        recall = self.true / self.objects
        precision = self.true / (self.true + self.false + np.spacing(1))
        best = np.maximum.accumulate(precision[::-1])[::-1]
        index = np.searchsorted(recall, RECALLS, side="left")
        return np.append(best, 0.0)[np.minimum(index, len(best))]

    def average_precision(self) -> float | None:
        """Mean of the precision over :data:`RECALLS`, as COCO defines it; None without objects."""
        precision = self.precision()
        return None if precision is None else float(precision.mean())

    def recall(self) -> float | None:
        """Part of the objects that is found; None without objects."""
        if not self.objects:
            return None
        return float(self.true[-1] / self.objects) if len(self.true) else 0.0

    def best_threshold(self) -> tuple[float, float] | None:
        """The score with the best F1 if detections below it are dropped, and that F1.

        The highest of several such scores. None without objects or detections.
        """
        if not self.objects or not len(self.scores):
            return None
        last = np.r_[self.scores[1:] != self.scores[:-1], True]  # equal scores stay or go together
        f1 = 2 * self.true / (self.true + self.false + self.objects)
        f1, scores = f1[last], self.scores[last]
        best = int(f1.argmax())
        return float(scores[best]), float(f1[best])
