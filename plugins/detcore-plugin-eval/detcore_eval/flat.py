"""Ground truth and detections of a dataset side by side, in flat arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from detcore_data import Collected
from jaxtyping import Bool, Float, Int

IouType = Literal["bbox", "segm"]


@dataclass(frozen=True)
class Flat:
    """A dataset's objects and detections, ordered by image; images are ordered by their ids.

    Args:
        names: Classes by label.
        positions: Where image i stands in the dataset's records.
        gt_offsets: Image i has the objects ``gt_offsets[i]`` up to ``gt_offsets[i + 1]``.
        gt_boxes: x, y, w, h in pixels.
        gt_labels: 0..K-1.
        gt_ignore: Which objects excuse detections and are not to be found.
        gt_any: Which of these do so for every class.
        det_offsets: Likewise for detections; those of an image are ordered by score, the best first.
        det_boxes: x, y, w, h in pixels.
        det_scores: 0..1.
        det_labels: 0..K-1.
        gt_runs: Masks as COCO's run lengths, where masks are compared.
        det_runs: Likewise.
    """

    names: tuple[str, ...]
    positions: Int[np.ndarray, "I"]
    gt_offsets: Int[np.ndarray, "I+1"]
    gt_boxes: Float[np.ndarray, "G 4"]
    gt_labels: Int[np.ndarray, "G"]
    gt_ignore: Bool[np.ndarray, "G"]
    gt_any: Bool[np.ndarray, "G"]
    det_offsets: Int[np.ndarray, "I+1"]
    det_boxes: Float[np.ndarray, "D 4"]
    det_scores: Float[np.ndarray, "D"]
    det_labels: Int[np.ndarray, "D"]
    gt_runs: tuple[Any, ...] | None = None
    det_runs: tuple[Any, ...] | None = None

    @property
    def gt_image(self) -> Int[np.ndarray, "G"]:
        """Each object's image."""
        return np.repeat(np.arange(len(self.positions)), np.diff(self.gt_offsets))

    @property
    def det_image(self) -> Int[np.ndarray, "D"]:
        """Each detection's image."""
        return np.repeat(np.arange(len(self.positions)), np.diff(self.det_offsets))

    def chunks(self, most: int) -> Iterator[tuple[int, int]]:
        """Ranges of images that have at most ``most`` pairs of object and detection, or are one image."""
        pairs = np.diff(self.gt_offsets) * np.diff(self.det_offsets)
        first, count = 0, 0
        for i, number in enumerate(pairs.tolist()):
            if count and count + number > most:
                yield first, i
                first, count = i, 0
            count += number
        if first < len(pairs):
            yield first, len(pairs)


def side_by_side(collected: Collected, iou_type: IouType = "bbox", *, only_seen: bool = False) -> Flat:
    """What was collected, in flat arrays.

    Args:
        collected: Ground truth and detections; made with ``masks=True`` where masks are compared.
        iou_type: What is compared.
        only_seen: Whether images that nothing was added for are left out rather than empty.
    """
    records = collected.seen_records() if only_seen else collected.records
    order = np.argsort(records.image_ids.numpy(), kind="stable")
    rows = [np.arange(*records.offsets[i : i + 2].tolist()) for i in order]
    index = np.concatenate([*rows, np.zeros(0, np.int64)]).astype(np.int64)
    annotations = records.annotations.select(_tensor(index))
    gt_runs = None
    if iou_type == "segm" and records.segmentations is not None:
        sizes = np.repeat(records.sizes.numpy()[order], [len(row) for row in rows], axis=0).tolist()
        gt_runs = tuple(
            records.segmentations.encode(segment, (height, width))
            for segment, (height, width) in zip(annotations.segments.tolist(), sizes, strict=True)
        )
    boxes, scores, labels, counts, runs = _detections(collected, records.image_ids.numpy()[order])
    return Flat(
        names=tuple(records.class_map.names),
        positions=order if not only_seen else _positions(collected, records.image_ids.numpy()[order]),
        gt_offsets=_offsets([len(row) for row in rows]),
        gt_boxes=annotations.boxes.numpy(),
        gt_labels=annotations.labels.numpy(),
        gt_ignore=annotations.ignore.numpy(),
        gt_any=(annotations.any_class & annotations.ignore).numpy(),
        det_offsets=_offsets(counts),
        det_boxes=boxes,
        det_scores=scores,
        det_labels=labels,
        gt_runs=gt_runs,
        det_runs=runs if iou_type == "segm" else None,
    )


def _positions(collected: Collected, ids: np.ndarray) -> np.ndarray:
    where = {image_id: i for i, image_id in enumerate(collected.records.image_ids.tolist())}
    return np.array([where[image_id] for image_id in ids.tolist()], dtype=np.int64)


def _detections(
    collected: Collected, ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int], tuple[Any, ...]]:
    boxes, scores, labels, counts = [np.zeros((0, 4))], [np.zeros(0)], [np.zeros(0, np.int64)], []
    runs: list[Any] = []
    for image_id in ids.tolist():
        found = collected.found.get(image_id)
        counts.append(0 if found is None else len(found))
        if found is None:
            continue
        score = found.scores.numpy().astype(np.float64)
        order = np.argsort(-score, kind="stable")
        corners = found.boxes.numpy().astype(np.float64)[order]
        corners[:, 2:] -= corners[:, :2]  # in float64, as after writing them to a file
        boxes.append(corners)
        scores.append(score[order])
        labels.append(found.labels.numpy()[order])
        if found.runs is not None:
            runs += [found.runs[i] for i in order]
    return np.concatenate(boxes), np.concatenate(scores), np.concatenate(labels), counts, tuple(runs)


def _offsets(counts: list[int]) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)


def _tensor(index: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(index)
