"""Box coders; boxes without extent give what they give in the reference."""

from __future__ import annotations

from typing import Any

from detcore_mmdet.options import Options, Translator


def delta(o: Options) -> dict[str, Any]:
    """DeltaXYWHBBoxCoder."""
    o.only("use_box_type", False)
    o.only("encode_size", 4)
    names = ("target_means", "target_stds", "clip_border", "add_ctr_clamp", "ctr_clamp")
    return {"type": "DeltaXYWHBBoxCoder", **o.same(*names), "empty_size": 0.0}


def distance(o: Options) -> dict[str, Any]:
    """DistancePointBBoxCoder."""
    o.only("use_box_type", False)
    return {"type": "DistancePointBBoxCoder", **o.same("clip_border")}


def tblr(o: Options) -> dict[str, Any]:
    """TBLRBBoxCoder."""
    o.only("use_box_type", False)
    return {"type": "TBLRBBoxCoder", **o.same("normalizer", "clip_border"), "empty_size": 0.0}


def pseudo(o: Options) -> dict[str, Any]:
    """PseudoBBoxCoder, which never clips in the reference."""
    o.only("use_box_type", False)
    return {"type": "PseudoBBoxCoder", "clip_border": False}


def legacy_delta(o: Options) -> dict[str, Any]:
    """LegacyDeltaXYWHBBoxCoder; the reference has no switch for clipping."""
    o.only("use_box_type", False)
    result = {"type": "LegacyDeltaXYWHBBoxCoder", **o.same("target_means", "target_stds")}
    return result | {"exact_decode": False, "empty_size": 0.0}


def yolo(o: Options) -> dict[str, Any]:
    """YOLOBBoxCoder, which never clips in the reference."""
    o.only("use_box_type", False)
    return {"type": "YOLOBBoxCoder", **o.same("eps"), "clip_border": False, "empty_size": 0.0}


def bucketing(o: Options) -> dict[str, Any]:
    """BucketingBBoxCoder, which clips at the last pixel."""
    o.only("use_box_type", False)
    names = (
        "num_buckets",
        "scale_factor",
        "offset_topk",
        "offset_upperbound",
        "cls_ignore_neighbor",
        "clip_border",
    )
    return {"type": "BucketingBBoxCoder", **o.same(*names), "legacy_clip": True, "empty_size": 0.0}


TRANSLATORS: dict[str, Translator] = {
    "BucketingBBoxCoder": bucketing,
    "DeltaXYWHBBoxCoder": delta,
    "DistancePointBBoxCoder": distance,
    "LegacyDeltaXYWHBBoxCoder": legacy_delta,
    "PseudoBBoxCoder": pseudo,
    "TBLRBBoxCoder": tblr,
    "YOLOBBoxCoder": yolo,
}
