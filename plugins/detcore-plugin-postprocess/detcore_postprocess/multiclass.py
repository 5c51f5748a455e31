"""Class-wise suppression of boxes that are decoded already, as second stages have them."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detcore.errors import ConfigError
from detcore.structures import Detections
from detcore_postprocess.candidates import Candidates, select_candidates
from detcore_postprocess.hard_nms import NMS
from detcore_postprocess.interface import Suppressed, Suppression
from detcore_postprocess.results import keep_best, to_detections


@torch.no_grad()
def multiclass_nms(
    boxes: Float[Tensor, "B N 4"] | Float[Tensor, "B N K 4"],
    scores: Float[Tensor, "B N K"],
    *,
    score_thr: float,
    iou_threshold: float = 0.5,
    nms: Suppression | None = None,
    max_per_img: int | None = None,
    class_agnostic: bool = False,
    factors: Float[Tensor, "B N"] | None = None,
    valid: Bool[Tensor, "B N"] | None = None,
) -> tuple[Detections, Int[Tensor, "B Q"]]:
    """The detections among N boxes, or N boxes per class.

    Args:
        boxes: xyxy in pixels.
        scores: Probabilities of the K classes, without background.
        score_thr: Scores must be greater, before ``factors``.
        iou_threshold: A box is dropped for a better one of its class with which its IoU is above this. Of no
            meaning where ``nms`` is given.
        nms: How duplicates are suppressed; :class:`NMS` where None.
        max_per_img: Q; where None, as many as the image with the most has.
        class_agnostic: Whether boxes of other classes count too.
        factors: Multiplied to the scores after the choice by ``score_thr``.
        valid: Boxes that take part; all where None.

    Returns:
        The detections, and for each the index n * K + k of its box and class, 0 in padded rows.

    Raises:
        ConfigError: The boxes are neither shared by the classes nor one for each.
    """
    if boxes.shape not in ((*scores.shape[:2], 4), (*scores.shape, 4)):
        raise ConfigError(
            f"boxes should have shape {[*scores.shape[:2], 4]} or {[*scores.shape, 4]} for scores "
            f"{list(scores.shape)}, got {list(boxes.shape)}",
            "multiclass_nms",
        )
    chosen = select_candidates(scores, score_thr=score_thr, valid=valid)
    image = torch.arange(len(scores), device=scores.device)[:, None]
    own = boxes[image, chosen.prior] if boxes.dim() == 3 else boxes[image, chosen.prior, chosen.label]
    if factors is not None:
        chosen = chosen.scored(chosen.score * factors.gather(1, chosen.prior))
    nms = NMS(iou_threshold=iou_threshold) if nms is None else nms
    left = suppress(nms, chosen, own, class_agnostic, max_per_img)
    if max_per_img is None:
        max_per_img = int(left.kept.sum(1).amax()) if len(left.kept) else 0
    slots, real = keep_best(left.scores, left.kept, max_per_img)
    detections = to_detections(own, left.scores, chosen.label, slots, real)
    index = chosen.prior * scores.shape[2] + chosen.label
    index = index if index.shape[1] else index.new_zeros(len(scores), 1)
    return detections, torch.where(real, index.gather(1, slots), 0)


def suppress(
    nms: Suppression,
    chosen: Candidates,
    boxes: Float[Tensor, "B T 4"],
    class_agnostic: bool = False,
    most: int | None = None,
) -> Suppressed:
    """What stays of the candidates of each image and, unless ``class_agnostic``, class."""
    groups = torch.zeros_like(chosen.label) if class_agnostic else chosen.label
    return nms(boxes, chosen.score, groups, valid=chosen.valid, most=most)
