"""Assigners, with the switches that give the reference's assignments."""

from __future__ import annotations

from typing import Any

from detcore_mmdet.options import Options, Translator


def max_iou(o: Options) -> dict[str, Any]:
    """MaxIoUAssigner."""
    names = (
        "pos_iou_thr",
        "neg_iou_thr",
        "min_pos_iou",
        "gt_max_assign_all",
        "match_low_quality",
        "ignore_wrt_candidates",
    )
    result = {"type": "MaxIoUAssigner", **o.same(*names), "ignore_iof_thr": _ignoring(o)}
    if isinstance(o.data.get("neg_iou_thr"), list):
        o.note(
            "neg_iou_thr", "taken as (low, high); a list, rather than a tuple, has no effect in the reference"
        )
    o.ignore("gpu_assign_thr", "memory is bounded anyway")
    o.only("perm_repeat_gt_cfg")
    _plain_iou(o)
    return {**result, "match_without_overlap": True, "ignore_in_empty_images": False}


def atss(o: Options) -> dict[str, Any]:
    """ATSSAssigner."""
    result = {"type": "ATSSAssigner", **o.same("topk", "alpha"), "ignore_iof_thr": _ignoring(o)}
    _plain_iou(o)
    quirks = {"ignored_candidates": True, "match_single_candidate": False, "ignore_in_empty_images": False}
    return {**result, **quirks}


def _ignoring(o: Options) -> Any:
    value = o.take("ignore_iof_thr", -1)
    return value if value > 0 else None


def _plain_iou(o: Options) -> None:
    calculator = o.options("iou_calculator")
    if calculator.type not in ("", "BboxOverlaps2D"):
        o.problem("iou_calculator.type", f"{calculator.type!r} has no counterpart in detcore")
    calculator.only("scale", 1.0)
    calculator.only("dtype")


TRANSLATORS: dict[str, Translator] = {"ATSSAssigner": atss, "MaxIoUAssigner": max_iou}
