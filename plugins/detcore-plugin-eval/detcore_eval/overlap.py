"""Which detections and objects overlap, as a list of pairs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from detcore_eval.flat import Flat


@dataclass(frozen=True)
class Pairs:
    """P pairs of a detection and an object of the same image, of any classes.

    Args:
        det: Detections.
        gt: Objects.
        overlap: Intersection over union; for objects to ignore, over the detection's own area.
    """

    det: Int[np.ndarray, "P"]
    gt: Int[np.ndarray, "P"]
    overlap: Float[np.ndarray, "P"]


def overlapping(flat: Flat, first: int, last: int, least: float) -> Pairs:
    """All pairs of some images that overlap.

    Args:
        flat: The dataset.
        first: First image.
        last: The image after the last.
        least: Lowest overlap that is listed, above 0.
    """
    if flat.gt_runs is not None:
        parts = [_mask_pairs(flat, image) for image in range(first, last)]
        det, gt, overlap = (np.concatenate([*column]) for column in zip(*parts, strict=True))
    else:
        det, gt = candidates(flat, first, last)
        overlap = _box_overlap(flat.det_boxes[det], flat.gt_boxes[gt], flat.gt_ignore[gt])
    kept = overlap >= least
    return Pairs(det[kept], gt[kept], overlap[kept])


def candidates(flat: Flat, first: int, last: int) -> tuple[Int[np.ndarray, "P"], Int[np.ndarray, "P"]]:
    """Every detection with every object of its image."""
    dets = np.arange(flat.det_offsets[first], flat.det_offsets[last])
    image = flat.det_image[dets]
    counts = np.diff(flat.gt_offsets)[image]
    det = np.repeat(dets, counts)
    start = np.cumsum(counts) - counts
    gt = np.arange(len(det)) - np.repeat(start, counts) + np.repeat(flat.gt_offsets[image], counts)
    return det, gt


def _box_overlap(a: np.ndarray, b: np.ndarray, over_own: np.ndarray) -> np.ndarray:
    """As pycocotools does it, to the last bit: with x + w, whatever x2 was."""
    low = np.maximum(a[:, :2], b[:, :2])
    high = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    extent = high - low
    inside = (extent > 0).all(axis=1)
    intersection = np.where(inside, extent[:, 0] * extent[:, 1], 0.0)
    own = a[:, 2] * a[:, 3]
    divisor = np.where(over_own, own, own + b[:, 2] * b[:, 3] - intersection)
    result: np.ndarray = np.divide(intersection, divisor, out=np.zeros_like(intersection), where=inside)
    return result


def _mask_pairs(flat: Flat, image: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from pycocotools import mask as coco_mask

    dets = np.arange(*flat.det_offsets[image : image + 2])
    gts = np.arange(*flat.gt_offsets[image : image + 2])
    if not len(dets) or not len(gts) or flat.det_runs is None or flat.gt_runs is None:
        none = np.zeros(0, np.int64)
        return none, none, np.zeros(0)
    mine, theirs = [flat.det_runs[i] for i in dets], [flat.gt_runs[i] for i in gts]
    with warnings.catch_warnings():  # of numpy's future, which nobody here can do anything about
        warnings.simplefilter("ignore", DeprecationWarning)
        overlap = np.asarray(coco_mask.iou(mine, theirs, flat.gt_ignore[gts].astype(np.uint8).tolist()))
    return np.repeat(dets, len(gts)), np.tile(gts, len(dets)), overlap.reshape(-1)
