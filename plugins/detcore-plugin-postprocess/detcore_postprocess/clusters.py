"""Which box dropped which."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detcore_postprocess.hard_nms import NMS
from detcore_postprocess.lanes import PAIRED_CELLS, better_overlaps, image_groups, lanes_of, takes_part


@torch.no_grad()
def nms_match(
    boxes: Float[Tensor, "B T 4"],
    scores: Float[Tensor, "B T"],
    groups: Int[Tensor, "B T"],
    iou_threshold: float,
    valid: Bool[Tensor, "B T"] | None = None,
) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """Clusters of boxes around those that NMS keeps.

    Cao et al., "Prime Sample Attention in Object Detection" (arXiv:1904.04821).

    Args:
        boxes: xyxy in pixels.
        scores: Not negative.
        groups: Any integers; boxes meet those of their image and group.
        iou_threshold: A box belongs to a better one with which its IoU is above this.
        valid: Rows that take part; all where None.

    Returns:
        For each row the one that it belongs to, the best of those that are kept and overlap it: itself where it
        is kept. And which rows take part; others belong to themselves.
    """
    kept = NMS(iou_threshold=iou_threshold)(boxes, scores, groups, valid=valid).kept
    valid = takes_part(boxes, scores, valid)
    flat = (boxes.flatten(0, 1).float(), scores.flatten(), valid.flatten(), kept.flatten())
    count = scores.shape[1]
    leader = torch.arange(scores.numel(), device=scores.device)
    for rows, real in lanes_of(image_groups(groups).flatten(), flat[1], flat[2], PAIRED_CELLS):
        own = torch.where(real[..., None], flat[0][rows], 0)
        leads = flat[3][rows] & real
        place = torch.arange(rows.shape[1], device=rows.device).expand_as(rows).clone()
        for part, overlaps in better_overlaps(own, None):
            hits = (overlaps > iou_threshold) & leads[:, : part.stop, None]
            first = hits.to(torch.int8).argmax(1)
            place[:, part] = torch.where(leads[:, part], place[:, part], first)
        leader[rows[real]] = rows.gather(1, place)[real]
    return leader.reshape(scores.shape) % max(count, 1), valid
