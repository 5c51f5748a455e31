"""Post-processing of a first stage: suppression within each level of the pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from detcore_postprocess import NMS, Suppression, keep_best, select_candidates, to_detections
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from detcore.component import Part, make
from detcore.interfaces import Postprocess
from detcore.interfaces.postprocess import BoxDecoder
from detcore.structures import Detections, ImageBatch

#: Below every score: a first stage ranks, it has no threshold.
_NO_THRESHOLD = -1.0


class LevelNMSPostprocess(Postprocess):
    """The best priors of each level, decoded, less those that overlap a better one of their level.

    1. Of each level, the ``nms_pre`` best.
    2. Their boxes are decoded, and only theirs.
    3. Boxes not wider and higher than ``min_bbox_size``, or scored below ``score_thr``, are dropped.
    4. Suppression by ``nms`` within each level, whatever the class.
    5. The ``max_per_img`` best of all levels, by descending score.

    Lin et al., "Feature Pyramid Networks for Object Detection" (arXiv:1612.03144).

    Args:
        nms_pre: Most candidates per level and image; all where None.
        min_bbox_size: Least width and height in pixels, itself excluded; None keeps whatever is decoded.
        iou_threshold: Largest IoU, itself included, of two results of a level; 1 suppresses nothing. It is
            supplied to ``nms`` where that states none of its own.
        max_per_img: Rows of the result per image (Q), padded where there are fewer.
        score_thr: Least score, itself included (torchvision's ``rpn_score_thresh``).
        nms: How duplicates are suppressed.
    """

    def __init__(
        self,
        *,
        nms_pre: Annotated[int, Field(ge=1)] | None = 1000,
        min_bbox_size: Annotated[float, Field(ge=0)] | None = 0.0,
        iou_threshold: Annotated[float, Field(ge=0, le=1)] = 0.7,
        max_per_img: Annotated[int, Field(ge=1)] = 1000,
        score_thr: Annotated[float, Field(ge=0, le=1)] = 0.0,
        nms: Part[Suppression] = NMS.spec(),
    ) -> None:
        self.nms_pre = nms_pre
        self.min_bbox_size = min_bbox_size
        self.iou_threshold = iou_threshold
        self.max_per_img = max_per_img
        self.score_thr = score_thr
        self.nms = make(nms, iou_threshold=iou_threshold)

    @torch.no_grad()
    def __call__(
        self,
        scores: Float[Tensor, "B N K"],
        decode: BoxDecoder,
        batch: ImageBatch,
        *,
        levels: Sequence[int] = (),
        factors: Float[Tensor, "B N"] | None = None,
        valid: Bool[Tensor, "B N"] | None = None,
    ) -> Detections:
        """See :class:`~detcore.interfaces.Postprocess`; Q is ``max_per_img``."""
        levels = tuple(levels) or (scores.shape[1],)
        chosen = select_candidates(
            scores,
            score_thr=_NO_THRESHOLD,
            nms_pre=self.nms_pre,
            levels=levels,
            valid=valid,
            fixed_shape=True,  # every prior has a score, so that there are hardly rows of padding
        )
        boxes = (
            decode(chosen.prior, chosen.label)
            if chosen.prior.shape[1]
            else scores.new_zeros(len(scores), 0, 4)
        )
        if factors is not None:
            chosen = chosen.scored(chosen.score * factors.gather(1, chosen.prior))
        ends = torch.tensor(levels, device=scores.device).cumsum(0)
        groups = torch.bucketize(chosen.prior, ends, right=True)
        eligible = chosen.valid & self._large_enough(boxes) & (chosen.score >= self.score_thr)
        left = self.nms(boxes, chosen.score, groups, valid=eligible, most=self.max_per_img)
        slots, real = keep_best(left.scores, left.kept, self.max_per_img)
        return to_detections(boxes, left.scores, chosen.label, slots, real)

    def _large_enough(self, boxes: Float[Tensor, "B T 4"]) -> Bool[Tensor, "B T"]:
        if self.min_bbox_size is None:
            return boxes.new_ones(boxes.shape[:-1], dtype=torch.bool)
        return (boxes[..., 2:] - boxes[..., :2] > self.min_bbox_size).all(-1)
