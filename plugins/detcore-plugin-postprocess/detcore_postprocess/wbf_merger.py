"""Merging of views by weighted boxes fusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from detcore.structures import Detections
from detcore_postprocess.fusion import Confidence, weighted_boxes_fusion
from detcore_postprocess.merger import Merger

Fraction = Annotated[float, Field(ge=0, le=1)]


class WeightedBoxesFusion(Merger):
    """One box for each cluster of boxes of all views: their mean, weighted by score.

    A box that few views have gets a lower score by all ways but "max". Masks are not fused: the result has none.

    Solovyev et al., "Weighted boxes fusion: Ensembling boxes from different object detection models"
    (arXiv:1910.13302).

    Args:
        iou_thr: IoU, itself excluded, from which a box joins a cluster.
        skip_box_thr: Least score of a box that takes part.
        conf_type: How a cluster's score comes from those of its boxes; see
            :func:`~detcore_postprocess.weighted_boxes_fusion`.
        allows_overflow: Whether "avg" may give scores above 1.
    """

    def __init__(
        self,
        *,
        iou_thr: Fraction = 0.55,
        skip_box_thr: Annotated[float, Field(ge=0)] = 0.0,
        conf_type: Confidence = "avg",
        allows_overflow: bool = False,
    ) -> None:
        self.iou_thr = iou_thr
        self.skip_box_thr = skip_box_thr
        self.conf_type: Confidence = conf_type
        self.allows_overflow = allows_overflow

    def __call__(
        self, views: Sequence[Detections], *, max_per_img: int, weights: Sequence[float] | None = None
    ) -> Detections:
        """See :class:`Merger`."""
        return weighted_boxes_fusion(
            views,
            weights=weights,
            iou_thr=self.iou_thr,
            skip_box_thr=self.skip_box_thr,
            conf_type=self.conf_type,
            allows_overflow=self.allows_overflow,
            max_per_img=max_per_img,
        )
