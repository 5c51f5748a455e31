"""Post-processing of dense heads by non-maximum suppression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from detcore.component import Part, make
from detcore.interfaces import Postprocess
from detcore.interfaces.postprocess import BoxDecoder
from detcore.structures import Detections, ImageBatch
from detcore_postprocess.candidates import Candidates, select_candidates
from detcore_postprocess.hard_nms import NMS
from detcore_postprocess.interface import Suppression
from detcore_postprocess.multiclass import suppress
from detcore_postprocess.results import keep_best, to_detections

Fraction = Annotated[float, Field(ge=0, le=1)]


class NMSPostprocess(Postprocess):
    """The best (prior, class) pairs of each level, decoded, without those that repeat a better one.

    1. Of each level, the ``nms_pre`` best pairs whose score is greater than ``score_thr``.
    2. Their boxes are decoded, and only theirs; ``factors`` are multiplied to their scores.
    3. Boxes not wider and higher than ``min_bbox_size`` are dropped.
    4. Suppression by ``nms``, class by class.
    5. The ``max_per_img`` best, by descending score.

    Equal scores are ordered by level, prior and class, so that the result is the same everywhere.

    Args:
        score_thr: Least score, itself excluded, before ``factors``.
        nms_pre: Most candidates per level and image; all where None.
        min_bbox_size: Least width and height in pixels, itself excluded; None keeps whatever is decoded.
        iou_threshold: Largest IoU, itself included, of two detections of a class; 1 suppresses nothing. It is
            supplied to ``nms`` where that states none of its own.
        max_per_img: Rows of the result per image (Q), padded where there are fewer detections.
        class_agnostic: Whether detections suppress those of other classes too.
        nms: How duplicates are suppressed.
    """

    def __init__(
        self,
        *,
        score_thr: Fraction = 0.05,
        nms_pre: Annotated[int, Field(ge=1)] | None = 1000,
        min_bbox_size: Annotated[float, Field(ge=0)] | None = 0.0,
        iou_threshold: Fraction = 0.5,
        max_per_img: Annotated[int, Field(ge=1)] = 100,
        class_agnostic: bool = False,
        nms: Part[Suppression] = NMS.spec(),
    ) -> None:
        self.score_thr = score_thr
        self.nms_pre = nms_pre
        self.min_bbox_size = min_bbox_size
        self.iou_threshold = iou_threshold
        self.max_per_img = max_per_img
        self.class_agnostic = class_agnostic
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
        """See :class:`~detcore.interfaces.Postprocess`; Q is ``max_per_img``.

        Raises:
            ConfigError: ``levels`` do not add up to N.
        """
        chosen = select_candidates(
            scores, score_thr=self.score_thr, nms_pre=self.nms_pre, levels=levels, valid=valid
        )
        if chosen.prior.shape[1]:
            boxes = decode(chosen.prior, chosen.label)
        else:  # no candidate in any image
            boxes = scores.new_zeros(len(scores), 0, 4)
        if factors is not None:
            chosen = chosen.scored(chosen.score * factors.gather(1, chosen.prior))
        chosen = Candidates(
            chosen.prior, chosen.label, chosen.score, chosen.valid & self._large_enough(boxes)
        )
        left = suppress(self.nms, chosen, boxes, self.class_agnostic, self.max_per_img)
        slots, real = keep_best(left.scores, left.kept, self.max_per_img)
        return to_detections(boxes, left.scores, chosen.label, slots, real)

    def _large_enough(self, boxes: Float[Tensor, "B T 4"]) -> Bool[Tensor, "B T"]:
        if self.min_bbox_size is None:
            return boxes.new_ones(boxes.shape[:-1], dtype=torch.bool)
        return (boxes[..., 2:] - boxes[..., :2] > self.min_bbox_size).all(-1)
