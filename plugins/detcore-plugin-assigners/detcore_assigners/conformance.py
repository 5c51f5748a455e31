"""Examples of this plugin's components for the conformance kit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from detcore.hooks import hookimpl

if TYPE_CHECKING:
    from detcore.testing import Subject


@hookimpl
def detcore_conformance_examples() -> Iterable[Subject]:
    """Assigners with the settings of well-known detectors."""
    from detcore.testing import Subject
    from detcore_assigners import (
        ApproxMaxIoUAssigner,
        ATSSAssigner,
        BBoxL1Cost,
        CenterRegionAssigner,
        FocalLossCost,
        GridAssigner,
        HungarianAssigner,
        MaxIoUAssigner,
        UniformAssigner,
    )

    retina = MaxIoUAssigner.spec(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.0)
    approx = ApproxMaxIoUAssigner.spec(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.0)
    return [
        Subject(retina, name="retina"),
        Subject(MaxIoUAssigner.spec(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3), name="rpn"),
        Subject(ATSSAssigner.spec()),
        Subject(ATSSAssigner.spec(topk=4, alpha=0.8), name="predictions"),
        Subject(approx, inputs={"priors": "approxs"}),
        Subject(CenterRegionAssigner.spec(pos_scale=0.2, neg_scale=0.5)),
        Subject(GridAssigner.spec(pos_iou_thr=0.5, neg_iou_thr=0.5)),
        Subject(HungarianAssigner.spec(match_costs=(FocalLossCost.spec(), BBoxL1Cost.spec()))),
        Subject(UniformAssigner.spec(pos_ignore_thr=0.15, neg_ignore_thr=0.7)),
    ]
