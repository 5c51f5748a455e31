"""Assigners, with the switches that give the reference's assignments."""

from __future__ import annotations

from typing import Any

from detcore_mmdet.options import Options, Translator


def max_iou(o: Options) -> dict[str, Any]:
    """MaxIoUAssigner, and ApproxMaxIoUAssigner."""
    names = (
        "pos_iou_thr",
        "neg_iou_thr",
        "min_pos_iou",
        "gt_max_assign_all",
        "match_low_quality",
        "ignore_wrt_candidates",
    )
    result = {"type": o.type, **o.same(*names), "ignore_iof_thr": _ignoring(o)}
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


def sim_ota(o: Options) -> dict[str, Any]:
    """SimOTAAssigner."""
    names = ("center_radius", "candidate_topk", "iou_weight", "cls_weight")
    _plain_iou(o)
    return {"type": "SimOTAAssigner", **o.same(*names), "ignore_regions": False, "match_outside": True}


def dynamic_soft_label(o: Options) -> dict[str, Any]:
    """DynamicSoftLabelAssigner."""
    result = {"type": "DynamicSoftLabelAssigner", **o.same("soft_center_radius", "topk", "iou_weight")}
    _plain_iou(o)
    return {**result, "ignore_regions": False, "match_outside": True}


def task_aligned(o: Options) -> dict[str, Any]:
    """TaskAlignedAssigner; ``alpha`` and ``beta`` stand beside it in the reference, in the head's train_cfg."""
    result = {"type": "TaskAlignedAssigner", **o.same("topk", "alpha", "beta")}
    _plain_iou(o)
    return {**result, "eps": 1e-7, "ignore_regions": False}


#: The three costs of the dialect of 2.x, in order, with what stands for one that is not given.
_OLD_COSTS: dict[str, dict[str, Any]] = {
    "cls_cost": {"type": "ClassificationCost", "weight": 1.0},
    "reg_cost": {"type": "BBoxL1Cost", "weight": 1.0},
    "iou_cost": {"type": "IoUCost", "iou_mode": "giou", "weight": 1.0},
}


def hungarian(o: Options) -> dict[str, Any]:
    """HungarianAssigner; in 2.x its costs were three options of their own."""
    if "match_costs" in o.data:
        costs = o.parts("match_costs")
    else:
        costs = [o.part(name, default=default) for name, default in _OLD_COSTS.items()]
    costs = costs if isinstance(costs, list) else [costs]
    return {"type": "HungarianAssigner", "match_costs": costs, "ignore_iof_thr": None}


def cost(*names: str) -> Translator:
    """A matching cost whose name and parameters are those of the reference."""

    def translate(o: Options) -> dict[str, Any]:
        return {"type": o.type, **o.same("weight", *names)}

    return translate


def cross_entropy_cost(o: Options) -> dict[str, Any]:
    """CrossEntropyLossCost."""
    o.only("use_sigmoid", True)
    return {"type": "CrossEntropyLossCost", **o.same("weight")}


def dice_cost(o: Options) -> dict[str, Any]:
    """DiceCost; masks count as probabilities there unless told otherwise."""
    pred_act = o.take("pred_act", False)
    return {"type": "DiceCost", **o.same("weight", "eps", "naive_dice"), "pred_act": pred_act}


def center_region(o: Options) -> dict[str, Any]:
    """CenterRegionAssigner."""
    names = ("pos_scale", "neg_scale", "min_pos_iof", "ignore_gt_scale", "foreground_dominate")
    _plain_iou(o)
    return {"type": "CenterRegionAssigner", **o.same(*names)}


def grid(o: Options) -> dict[str, Any]:
    """GridAssigner."""
    result = {
        "type": "GridAssigner",
        **o.same("pos_iou_thr", "neg_iou_thr", "min_pos_iou", "gt_max_assign_all"),
    }
    if isinstance(o.data.get("neg_iou_thr"), int):
        o.note("neg_iou_thr", "an integer is a number like any other; the reference leaves no negatives")
    _plain_iou(o)
    return {**result, "ignore_iof_thr": None, "own_cell": False}


def point(o: Options) -> dict[str, Any]:
    """PointAssigner."""
    return {
        "type": "PointAssigner",
        **o.same("scale", "pos_num"),
        "ignore_gt_scale": None,
        "first_of_equals": False,
    }


def region(o: Options) -> dict[str, Any]:
    """RegionAssigner; the size of anchors is read from them here."""
    same = o.same("center_ratio", "ignore_ratio")
    return {"type": "RegionAssigner", **same, "ignore_iof_thr": None, "sequential": True}


def uniform(o: Options) -> dict[str, Any]:
    """UniformAssigner."""
    result = {"type": "UniformAssigner", **o.same("pos_ignore_thr", "neg_ignore_thr", "match_times")}
    _plain_iou(o)
    return {**result, "ignore_iof_thr": None, "last_choice_wins": True, "first_of_equals": False}


def _ignoring(o: Options) -> Any:
    value = o.take("ignore_iof_thr", -1)
    return value if value > 0 else None


def _plain_iou(o: Options) -> None:
    calculator = o.options("iou_calculator")
    if calculator.type not in ("", "BboxOverlaps2D"):
        o.problem("iou_calculator.type", f"{calculator.type!r} has no counterpart in detcore")
    calculator.only("scale", 1.0)
    calculator.only("dtype")


TRANSLATORS: dict[str, Translator] = {
    "ATSSAssigner": atss,
    "ApproxMaxIoUAssigner": max_iou,
    "BBoxL1Cost": cost("box_format"),
    "CenterRegionAssigner": center_region,
    "ClassificationCost": cost(),
    "CrossEntropyLossCost": cross_entropy_cost,
    "DiceCost": dice_cost,
    "DynamicSoftLabelAssigner": dynamic_soft_label,
    "FocalLossCost": cost("alpha", "gamma", "eps", "binary_input"),
    "GridAssigner": grid,
    "HungarianAssigner": hungarian,
    "IoUCost": cost("iou_mode"),
    "MaxIoUAssigner": max_iou,
    "PointAssigner": point,
    "RegionAssigner": region,
    "SimOTAAssigner": sim_ota,
    "TaskAlignedAssigner": task_aligned,
    "UniformAssigner": uniform,
}
