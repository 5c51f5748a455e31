"""Post-processing: ``test_cfg`` of dense heads and of RoI heads, and what it says of suppression."""

from __future__ import annotations

from typing import Any

from detcore_mmdet.options import Options

_NMS = {"nms": "NMS", "soft_nms": "SoftNMS"}
#: What the reference's operators take where the configuration is silent.
_IOU_THRESHOLD = {"nms": 0.5, "soft_nms": 0.3}


def nms_postprocess(test: Options) -> dict[str, Any]:
    """NMSPostprocess. Without a ``test_cfg`` the numbers are the component's own."""
    if not test.data:
        test.note("", "no test_cfg: post-processing has detcore's defaults")
        return {"type": "NMSPostprocess"}
    nms = test.options("nms")
    result = {
        "type": "NMSPostprocess",
        "score_thr": test.take("score_thr", 0.0),
        "nms_pre": _limit(test.take("nms_pre", -1)),
        "min_bbox_size": _at_least_zero(test.take("min_bbox_size", -1)),
        **test.same("max_per_img"),
    }
    if nms.take("class_agnostic", False):
        result["class_agnostic"] = True
    return with_suppression(result, nms, default=100)


def level_nms(test: Options) -> dict[str, Any]:
    """LevelNMSPostprocess: what chooses the proposals of a first stage."""
    nms = test.options("nms")
    test.only("nms_across_levels", False)
    test.ignore("nms_post", "each level keeps what its suppression leaves")
    result = {
        "type": "LevelNMSPostprocess",
        "nms_pre": _limit(test.take("nms_pre", -1)),
        "min_bbox_size": _at_least_zero(test.take("min_bbox_size", -1)),
    }
    most = test.take("max_per_img", test.take("max_num"))
    result |= {} if most is None else {"max_per_img": most}
    nms.only("class_agnostic", False)
    return with_suppression(result, nms, default=1000, iou_threshold=test.take("nms_thr", 0.7))


def with_suppression(
    result: dict[str, Any], nms: Options, default: int, iou_threshold: float | None = None
) -> dict[str, Any]:
    """Adds the threshold, the suppression where it is not plain NMS, and its limit to all classes together.

    Args:
        result: The post-processing so far.
        nms: The suppression's options.
        default: ``max_per_img`` where it is not stated.
        iou_threshold: Taken where the suppression states none; the operator's own where None.
    """
    kind = nms.take("type", "nms")
    if kind not in _NMS:
        nms.problem("type", f"the suppression {kind!r} has no counterpart in detcore")
        nms.take_all()
        return result
    own = _IOU_THRESHOLD[kind] if iou_threshold is None else iou_threshold
    result["iou_threshold"] = nms.take("iou_threshold", nms.take("iou_thr", own))
    names = ("offset", "score_threshold") if kind == "nms" else ("offset", "method", "sigma", "min_score")
    part = {"type": _NMS[kind], **nms.same(*names)}
    if any(value for name, value in part.items() if name != "type") or kind != "nms":
        result["nms"] = part
    nms.ignore("split_thr", "large inputs are suppressed class by class anyway")
    most = nms.take("max_num", -1)
    if most >= 0:
        result["max_per_img"] = min(most, result.get("max_per_img", default))
    return result


def _limit(value: int) -> int | None:
    return value if value > 0 else None


def _at_least_zero(value: float) -> float | None:
    return value if value >= 0 else None
