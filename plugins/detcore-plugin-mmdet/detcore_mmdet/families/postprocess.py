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


def level_nms(test: Options) -> dict[str, Any]:
    """LevelNMSPostprocess: what chooses the proposals of a first stage."""
    nms = test.options("nms")
    kind = nms.take("type", "nms")
    if kind != "nms":
        test.problem("nms.type", f"the suppression {kind!r} has no counterpart in detcore yet")
        nms.take_all()
    test.only("nms_across_levels", False)
    test.ignore("nms_post", "each level keeps what its suppression leaves")
    result = {
        "type": "LevelNMSPostprocess",
        "nms_pre": _limit(test.take("nms_pre", -1)),
        "min_bbox_size": _at_least_zero(test.take("min_bbox_size", -1)),
        "iou_threshold": nms.take("iou_threshold", test.take("nms_thr", 0.7)),
    }
    most = test.take("max_per_img", test.take("max_num"))
    return result if most is None else {**result, "max_per_img": most}


def _limit(value: int) -> int | None:
    return value if value > 0 else None


def _at_least_zero(value: float) -> float | None:
    return value if value >= 0 else None
