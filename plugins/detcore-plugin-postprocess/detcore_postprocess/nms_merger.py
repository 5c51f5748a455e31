"""Merging of views by suppression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field

from detcore.component import Part, make
from detcore.structures import Detections
from detcore_postprocess.hard_nms import NMS
from detcore_postprocess.interface import Suppression
from detcore_postprocess.merger import Merger
from detcore_postprocess.merging import best_detections, check_weights, join_detections

Fraction = Annotated[float, Field(ge=0, le=1)]


class NMSMerger(Merger):
    """All detections together, duplicates suppressed as within one view.

    Masks come along where all views have some of one resolution. Weights multiply the scores of a view, such that
    the largest weight counts as 1.

    Args:
        iou_threshold: Largest overlap of two detections of a class; supplied to ``nms`` where that states none.
        class_agnostic: Whether detections suppress those of other classes too.
        nms: How duplicates are suppressed.
    """

    def __init__(
        self,
        *,
        iou_threshold: Fraction = 0.5,
        class_agnostic: bool = False,
        nms: Part[Suppression] = NMS.spec(),
    ) -> None:
        self.iou_threshold = iou_threshold
        self.class_agnostic = class_agnostic
        self.nms = make(nms, iou_threshold=iou_threshold)

    @torch.no_grad()
    def __call__(
        self, views: Sequence[Detections], *, max_per_img: int, weights: Sequence[float] | None = None
    ) -> Detections:
        """See :class:`Merger`."""
        shares = check_weights(views, weights, "NMSMerger")
        together = join_detections(
            [
                view.replace(scores=view.scores * (share / max(shares)))
                for view, share in zip(views, shares, strict=True)
            ]
        )
        groups = torch.zeros_like(together.labels) if self.class_agnostic else together.labels
        left = self.nms(together.boxes, together.scores, groups, valid=together.valid, most=max_per_img)
        return best_detections(together.replace(scores=left.scores, valid=left.kept), max_per_img)
