"""Post-processing: ``test_cfg`` of dense heads."""

from __future__ import annotations

from typing import Any

from detcore_mmdet.options import Options


def nms_postprocess(test: Options) -> dict[str, Any]:
    """NMSPostprocess. Without a ``test_cfg`` the numbers are the component's own."""
    if not test.data:
        test.note("", "no test_cfg: post-processing has detcore's defaults")
        return {"type": "NMSPostprocess"}
    nms = test.options("nms")
    kind = nms.take("type", "nms")
    if kind != "nms":
        test.problem("nms.type", f"the suppression {kind!r} has no counterpart in detcore yet")
        nms.take_all()
        test.take_all()
        return {"type": "NMSPostprocess"}
    result = {
        "type": "NMSPostprocess",
        "score_thr": test.take("score_thr", 0.0),
        "nms_pre": _limit(test.take("nms_pre", -1)),
        "min_bbox_size": _at_least_zero(test.take("min_bbox_size", -1)),
        "iou_threshold": nms.take("iou_threshold", nms.take("iou_thr", 0.5)),
    }
    result |= test.same("max_per_img")
    if nms.take("class_agnostic", False):
        result["class_agnostic"] = True
    nms.ignore("split_thr", "large inputs are suppressed class by class anyway")
    nms.only("max_num", -1)
    nms.only("offset", 0)
    return result


def _limit(value: int) -> int | None:
    return value if value > 0 else None


def _at_least_zero(value: float) -> float | None:
    return value if value >= 0 else None
