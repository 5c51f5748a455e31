"""How KITTI's object benchmark counts: Geiger et al., CVPR 2012, and its development kit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

#: From the least to the most that is asked for.
DIFFICULTIES = ("easy", "moderate", "hard")
_STEPS = 40
_TINY = 1e-9


class Difficulty(NamedTuple):
    """Which objects count.

    Args:
        height: Least height of the box, in pixels.
        occlusion: Highest level of occlusion.
        truncation: Greatest part that is out of the image.
    """

    height: float
    occlusion: float
    truncation: float

    def admits(self, height: float, occlusion: int, truncation: float) -> bool:
        """Whether an object counts."""
        return height >= self.height and occlusion <= self.occlusion and truncation <= self.truncation


@dataclass(frozen=True)
class Scene:
    """One image.

    Args:
        names: Classes of its G objects.
        boxes: xyxy.
        occlusion: Levels.
        truncation: Parts out of the image.
        found: Boxes of its D detections, xyxy.
        scores: Of the detections.
        found_names: Their classes.
    """

    names: tuple[str, ...]
    boxes: Float[np.ndarray, "G 4"]
    occlusion: Int[np.ndarray, "G"]
    truncation: Float[np.ndarray, "G"]
    found: Float[np.ndarray, "D 4"]
    scores: Float[np.ndarray, "D"]
    found_names: tuple[str, ...]


@dataclass(frozen=True)
class _View:
    """An image as one class and difficulty see it; objects and detections of no concern are gone.

    Args:
        overlap: Which detections [D] overlap which objects [G], by how much where by enough, else 0.
        wanted: Objects to be found; the others excuse detections.
        scores: Of the detections.
        low: Detections below the least height: they neither find nor err, but may take an object.
        excused: Detections in a region that does not matter.
    """

    overlap: Float[np.ndarray, "D G"]
    wanted: Bool[np.ndarray, "G"]
    scores: Float[np.ndarray, "D"]
    low: Bool[np.ndarray, "D"]
    excused: Bool[np.ndarray, "D"]


def precisions(
    scenes: Sequence[Scene],
    name: str,
    neighbour: str | None,
    min_overlap: float,
    difficulty: Difficulty,
    *,
    once: bool = False,
) -> Float[np.ndarray, "41"] | None:
    """Precision at the recalls 0, 1/40, ..., 1 (the greatest from there on); None without objects that count.

    Args:
        scenes: All images.
        name: The class.
        neighbour: A class whose objects excuse detections of it.
        min_overlap: IoU above which an object is found.
        difficulty: Which objects count.
        once: Whether a score stands for one recall at most.
    """
    views = [_view(scene, name, neighbour, min_overlap, difficulty) for scene in scenes]
    objects = int(sum(view.wanted.sum() for view in views))
    if not objects:
        return None
    views = [view for view in views if len(view.scores)]
    scores = np.concatenate([*(_best_scored(view) for view in views), np.zeros(0)])
    result = np.zeros(_STEPS + 1)
    for i, threshold in enumerate(_thresholds(scores, objects, once=once)):
        counts = [_count(view, threshold) for view in views]
        true, false = (sum(column) for column in zip(*counts, strict=True))
        result[i] = true / (true + false) if true else 0.0
    return np.maximum.accumulate(result[::-1])[::-1]


def average_precision(values: Float[np.ndarray, "41"], points: int) -> float:
    """The mean of precisions over 40 recalls (without 0), or over 11.

    Args:
        values: From :func:`precisions`.
        points: 40 or 11.
    """
    return float(values[1:].mean() if points == _STEPS else values[::4].mean())


def _view(
    scene: Scene, name: str, neighbour: str | None, min_overlap: float, difficulty: Difficulty
) -> _View:
    heights = scene.boxes[:, 3] - scene.boxes[:, 1]
    own = np.array([other == name for other in scene.names], np.bool_)
    near = np.array([other == neighbour for other in scene.names], np.bool_)
    wanted = own & np.array(
        [
            difficulty.admits(*row)
            for row in zip(heights.tolist(), scene.occlusion.tolist(), scene.truncation.tolist(), strict=True)
        ],
        np.bool_,
    )
    # the kit cuts a detection's height down to whole pixels, and asks low ones for no class
    low = np.floor(np.abs(scene.found[:, 3] - scene.found[:, 1])) < difficulty.height
    mine = low | np.array([other == name for other in scene.found_names], np.bool_)
    found, concern = scene.found[mine], own | near
    regions = scene.boxes[np.array([other == "DontCare" for other in scene.names], np.bool_)]
    overlap = _overlap(found, scene.boxes[concern], over_own=False)
    inside = np.asarray((_overlap(found, regions, over_own=True) > min_overlap).any(axis=1))
    return _View(
        overlap=np.where(overlap > min_overlap, overlap, 0.0),
        wanted=wanted[concern],
        scores=scene.scores[mine],
        low=low[mine],
        excused=inside,
    )


def _overlap(a: np.ndarray, b: np.ndarray, *, over_own: bool) -> np.ndarray:
    extent = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    inside = (extent > 0).all(axis=-1)
    intersection = np.where(inside, extent.prod(axis=-1), 0.0)
    own = (a[:, 2:] - a[:, :2]).prod(axis=-1)[:, None]
    other = (b[:, 2:] - b[:, :2]).prod(axis=-1)[None]
    divisor = own + 0 * other if over_own else own + other - intersection
    result: np.ndarray = np.divide(intersection, divisor, out=np.zeros_like(intersection), where=inside)
    return result


def _best_scored(view: _View) -> np.ndarray:
    """The scores at which objects are found if each, in turn, takes the free detection with the best score."""
    free, scores = np.ones(len(view.scores), np.bool_), []
    for overlap, wanted in zip(view.overlap.T, view.wanted.tolist(), strict=True):
        able = free & (overlap > 0)
        if not able.any():
            continue
        taken = int(np.where(able, view.scores, -np.inf).argmax())
        free[taken] = False
        if wanted and not view.low[taken]:
            scores.append(view.scores[taken])
    return np.array(scores, dtype=np.float64)


def _thresholds(scores: np.ndarray, objects: int, *, once: bool) -> list[float]:
    """Scores whose recalls are nearest to 0, 1/40, ..., 1, as far as the recall goes."""
    chosen: list[float] = []
    aim, ordered = 0.0, np.sort(scores)[::-1].tolist()
    for i, score in enumerate(ordered):
        here, last = (i + 1) / objects, i == len(ordered) - 1
        following = here if last else (i + 2) / objects
        if not last and following - aim < aim - here:
            continue
        chosen.append(score)
        aim += 1 / _STEPS
        while not once and aim <= here + _TINY and (last or aim - here < following - aim):
            chosen.append(score)  # the next score's recall is farther from this one, too
            aim += 1 / _STEPS
    return chosen[: _STEPS + 1]


def _count(view: _View, threshold: float) -> tuple[int, int]:
    """Right and wrong detections among those with a score, each object taking the one that it overlaps most."""
    kept = view.scores >= threshold
    free, true = kept.copy(), 0
    for overlap, wanted in zip(view.overlap.T, view.wanted.tolist(), strict=True):
        able = free & (overlap > 0)
        tall = able & ~view.low
        if tall.any():
            taken = int(np.where(tall, overlap, 0.0).argmax())
            true += wanted
        elif able.any():
            taken = int(able.argmax())  # a low one, the first
        else:
            continue
        free[taken] = False
    return true, int((free & ~view.low & ~view.excused).sum())
