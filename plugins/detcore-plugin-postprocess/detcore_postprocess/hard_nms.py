"""Greedy non-maximum suppression."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from detcore.component import wired
from detcore_postprocess import lanes
from detcore_postprocess.contained import drop_contained
from detcore_postprocess.interface import Suppressed, Suppression
from detcore_postprocess.onnx import grouped_nms, wants_onnx
from detcore_postprocess.suppression import grown, nms_mask

Fraction = Annotated[float, Field(ge=0, le=1)]


class NMS(Suppression):
    """From the best box on, each drops the worse ones of its group that it overlaps.

    The operator is ``torchvision.ops.nms``; groups are kept apart exactly. Of boxes with equal scores the first
    stays. A dropped box drops no other. Where only the ``most`` best are asked for, worse boxes are not looked at.

    Neubeck and Van Gool, "Efficient Non-Maximum Suppression" (ICPR 2006); per class as in Girshick et al.,
    "Rich feature hierarchies" (arXiv:1311.2524).

    Args:
        iou_threshold: A box is dropped for a better one with which its IoU is above this; 1 drops none.
            Supplied by the owner where it is not stated.
        overlap: What is held against it: "iou", or "ios", the intersection over the smaller box, by which a
            part of an object repeats the whole of it (as where images are cut to tiles).
        score_threshold: Boxes must have a greater score to take part; 0 means no threshold. It applies to what
            the scores are by then, after factors such as centerness.
        offset: Added to widths and heights: 1 counts the last pixel of a box as part of it, as old datasets do.
    """

    def __init__(
        self,
        *,
        iou_threshold: Fraction = wired(0.5, may_override=True),
        overlap: Literal["iou", "ios"] = "iou",
        score_threshold: Fraction = 0.0,
        offset: Literal[0, 1] = 0,
    ) -> None:
        self.iou_threshold = iou_threshold
        self.overlap = overlap
        self.score_threshold = score_threshold
        self.offset = offset

    @torch.no_grad()
    def __call__(
        self,
        boxes: Float[Tensor, "B T 4"],
        scores: Float[Tensor, "B T"],
        groups: Int[Tensor, "B T"],
        *,
        valid: Bool[Tensor, "B T"] | None = None,
        most: int | None = None,
    ) -> Suppressed:
        """See :class:`Suppression`; scores stay as they are."""
        if self.score_threshold > 0:
            above = scores > self.score_threshold
            valid = above if valid is None else above & valid
        boxes = grown(boxes, self.offset)
        if self.overlap == "ios":
            left = drop_contained(boxes, scores, groups, valid, self.iou_threshold)
            return left._replace(scores=scores)
        if wants_onnx():
            part = lanes.takes_part(boxes, scores, valid)
            return Suppressed(scores, grouped_nms(boxes, scores, groups, part, self.iou_threshold))
        groups = lanes.image_groups(groups)
        if most is None or scores.shape[1] <= lanes.FIRST * most or torch.compiler.is_compiling():
            return Suppressed(scores, nms_mask(boxes, scores, groups, self.iou_threshold, valid))
        return Suppressed(
            scores, self._best(boxes, scores, groups, lanes.takes_part(boxes, scores, valid), most)
        )

    def _best(self, boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, most: int) -> Tensor:
        """What stays of the best boxes, more and more of them, until every image has ``most``.

        That is exact: worse boxes drop none, and what was dropped drops none either, so that only what stays is
        looked at again.
        """
        rank = lanes.places(scores, valid)
        kept, start, count = torch.zeros_like(valid), 0, lanes.FIRST * most
        while start < scores.shape[1]:
            wanting = kept.sum(1, keepdim=True) < most
            more = valid & wanting & (rank >= start) & (rank < start + count)
            if not bool(more.any()):
                break
            kept = nms_mask(boxes, scores, groups, self.iou_threshold, kept | more)
            start, count = start + count, 2 * count
        return kept
