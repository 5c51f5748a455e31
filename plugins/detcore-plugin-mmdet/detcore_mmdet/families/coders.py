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


TRANSLATORS: dict[str, Translator] = {
    "DeltaXYWHBBoxCoder": delta,
    "DistancePointBBoxCoder": distance,
    "TBLRBBoxCoder": tblr,
}
