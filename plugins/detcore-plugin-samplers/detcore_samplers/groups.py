"""Groups of boxes around the best ones: what non-maximum suppression would keep, and what for its sake it drops."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detcore.operators import nms

#: Most overlaps that are computed at once.
_CHUNK = 2**21


def overlap_groups(
    boxes: Float[Tensor, "B N 4"], among: Bool[Tensor, "B N"], iou_thr: float
) -> Int[Tensor, "B N"]:
    """For each box the index of the box that its group is around.

    The first box founds a group of all others that overlap it by more than ``iou_thr``, the next one that is
    left founds another of what is left, and so on. Boxes that do not take part are groups of their own.

    Args:
        boxes: Boxes in the order of preference.
        among: Which of them take part.
        iou_thr: Overlap beyond which a box joins a group.
    """
    # without extent, a box overlaps nothing
    boxes = torch.where(among[..., None], boxes.double(), 0)
    founders = _kept(boxes, iou_thr)
    count = boxes.shape[1]
    group = torch.arange(count, device=boxes.device).expand(len(boxes), -1)
    # suppression has synchronised already, so counting the founders costs nothing more
    most = int(founders.sum(dim=1).max()) if founders.numel() else 0
    rows = (~founders).long().argsort(dim=1, stable=True)[:, :most]
    step = max(1, _CHUNK // max(1, founders.numel()))
    for start in range(0, most, step):
        chunk = rows[:, start : start + step]
        own = boxes.gather(1, chunk[..., None].expand(-1, -1, 4))
        joins = (_overlaps(own, boxes) > iou_thr) & founders.gather(1, chunk)[..., None]
        first = torch.where(joins, chunk[..., None], count).amin(dim=1)
        group = torch.minimum(group, first)
    return group


def _kept(boxes: Tensor, iou_thr: float) -> Bool[Tensor, "B N"]:
    """What suppression keeps of each image. In float64 images can be moved apart without changing overlaps."""
    images, count = boxes.shape[:2]
    if not images * count:
        return torch.zeros(images, count, dtype=torch.bool, device=boxes.device)
    span = boxes.amax() - boxes.amin() + 1
    apart = boxes + torch.arange(images, device=boxes.device)[:, None, None] * span
    preference = -torch.arange(count, device=boxes.device, dtype=boxes.dtype).expand(images, -1)
    kept = nms(apart.flatten(0, 1), preference.flatten(), iou_thr)
    flags = torch.zeros(images * count, dtype=torch.bool, device=boxes.device)
    return flags.index_fill(0, kept, True).reshape(images, count)


def _overlaps(a: Float[Tensor, "B N 4"], b: Float[Tensor, "B M 4"]) -> Float[Tensor, "B N M"]:
    """IoU as suppression computes it; 0 for boxes without extent."""
    low = torch.maximum(a[:, :, None, :2], b[:, None, :, :2])
    high = torch.minimum(a[:, :, None, 2:], b[:, None, :, 2:])
    inner = (high - low).clamp(min=0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (a, b)]
    union = areas[0][:, :, None] + areas[1][:, None] - inner
    return inner / torch.where(union > 0, union, 1)
