"""Assigners that look at predictions, and matching costs: every option, and the switches for parity."""

import pytest
from detcore_mmdet.errors import TranslationError
from detcore_mmdet.translation import translate, translation_of

from detcore.serialize import build

SWITCHES = {"ignore_regions": False, "match_outside": True}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"type": "SimOTAAssigner", "center_radius": 2.5}, {"center_radius": 2.5, **SWITCHES}),
        (
            {"type": "SimOTAAssigner", "candidate_topk": 5, "iou_weight": 2.0, "cls_weight": 0.5},
            {"candidate_topk": 5, "iou_weight": 2.0, "cls_weight": 0.5, **SWITCHES},
        ),
        (
            {"type": "DynamicSoftLabelAssigner", "topk": 5, "soft_center_radius": 2.0, "iou_weight": 1.0},
            {"topk": 5, "soft_center_radius": 2.0, "iou_weight": 1.0, **SWITCHES},
        ),
        (
            {"type": "TaskAlignedAssigner", "topk": 4, "iou_calculator": {"type": "BboxOverlaps2D"}},
            {"topk": 4, "eps": 1e-7, "ignore_regions": False},
        ),
        ({"type": "ClassificationCost", "weight": 2.0}, {"weight": 2.0}),
        (
            {"type": "FocalLossCost", "alpha": 0.5, "gamma": 1.0, "eps": 1e-6, "binary_input": True},
            {"alpha": 0.5, "gamma": 1.0, "eps": 1e-6, "binary_input": True},
        ),
        ({"type": "BBoxL1Cost", "box_format": "xywh"}, {"box_format": "xywh"}),
        ({"type": "IoUCost", "iou_mode": "iou"}, {"iou_mode": "iou"}),
        ({"type": "CrossEntropyLossCost", "use_sigmoid": True, "weight": 5}, {"weight": 5}),
        ({"type": "DiceCost", "pred_act": True, "eps": 1.0}, {"pred_act": True, "eps": 1.0}),
        ({"type": "DiceCost", "naive_dice": False}, {"pred_act": False, "naive_dice": False}),
    ],
    ids=lambda value: value.get("type") if "type" in value else "",
)
def test_options(config, expected):
    assert translate(config) == {"type": config["type"], **expected}
    assert type(build(translate(config))).__name__ == config["type"]


CLASSES, BOXES = (
    {"type": "FocalLossCost", "weight": 2.0},
    {"type": "IoUCost", "weight": 1.0, "iou_mode": "giou"},
)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"match_costs": [CLASSES, BOXES]}, [CLASSES, BOXES]),
        ({"match_costs": CLASSES}, [CLASSES]),
        (
            {"cls_cost": CLASSES, "reg_cost": {"type": "BBoxL1Cost", "weight": 5.0}},
            [CLASSES, {"type": "BBoxL1Cost", "weight": 5.0}, BOXES],
        ),
    ],
    ids=["list", "one", "dialect of 2.x"],
)
def test_costs_of_hungarian(options, expected):
    translated = translate({"type": "HungarianAssigner", **options})
    assert translated == {"type": "HungarianAssigner", "match_costs": expected, "ignore_iof_thr": None}
    assert len(build(translated).match_costs) == len(expected)


@pytest.mark.parametrize(
    ("config", "path", "message"),
    [
        ({"type": "CrossEntropyLossCost", "use_sigmoid": False}, "use_sigmoid", "only True is"),
        ({"type": "SimOTAAssigner", "gpu_thr": 1}, "gpu_thr", "is not translated"),
        (
            {"type": "TaskAlignedAssigner", "topk": 4, "iou_calculator": {"type": "GIoU"}},
            "iou_calculator.type",
            "'GIoU' has no counterpart",
        ),
        (
            {"type": "HungarianAssigner", "match_costs": [CLASSES, {"type": "BinaryFocalLossCost"}]},
            "match_costs.1.type",
            r"'BinaryFocalLossCost' \(match cost\) would need a detcore plugin",
        ),
    ],
)
def test_nothing_is_dropped_silently(config, path, message):
    with pytest.raises(TranslationError, match=message) as raised:
        translation_of(config)
    assert [problem.path for problem in raised.value.problems] == [path]
