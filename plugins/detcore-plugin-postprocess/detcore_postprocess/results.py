"""From kept candidates to detections."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from detcore.structures import Detections


def keep_best(
    scores: Float[Tensor, "B T"], kept: Bool[Tensor, "B T"], count: int
) -> tuple[Int[Tensor, "B Q"], Bool[Tensor, "B Q"]]:
    """The slots of each image's ``count`` best kept rows, by descending score; equal ones in their order.

    Returns:
        Slots, 0 where there are fewer, and which of them are kept rows.
    """
    order = scores.masked_fill(~kept, -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :count]
    valid = kept.gather(1, order)
    missing = (0, count - order.shape[1])
    return F.pad(order.masked_fill(~valid, 0), missing), F.pad(valid, missing)


def to_detections(
    boxes: Float[Tensor, "B T 4"],
    scores: Float[Tensor, "B T"],
    labels: Int[Tensor, "B T"],
    slots: Int[Tensor, "B Q"],
    valid: Bool[Tensor, "B Q"],
) -> Detections:
    """The rows that :func:`keep_best` chose, zeros where there are none. Scores are float32 at least."""
    if not boxes.shape[1]:  # nothing to gather from; all slots are padding
        boxes, scores, labels = F.pad(boxes, (0, 0, 0, 1)), F.pad(scores, (0, 1)), F.pad(labels, (0, 1))
    scores = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    return Detections(
        boxes=torch.where(valid[..., None], boxes.gather(1, slots[..., None].expand(-1, -1, 4)), 0),
        scores=torch.where(valid, scores.gather(1, slots), 0),
        labels=torch.where(valid, labels.gather(1, slots), 0),
        valid=valid,
    )
