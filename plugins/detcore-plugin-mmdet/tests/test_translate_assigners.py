"""Assigners that look at geometry only: every option arrives, and the switches give the reference's numbers."""

import pytest
from detcore_mmdet import TranslationError, translate
from detcore_mmdet.translation import translation_of

from detcore import build

CASES = [
    (
        {"type": "PointAssigner", "scale": 2, "pos_num": 1},
        {"scale": 2, "pos_num": 1, "ignore_gt_scale": None, "first_of_equals": False},
    ),
    (
        {
            "type": "CenterRegionAssigner",
            "pos_scale": 0.2,
            "neg_scale": 0.3,
            "min_pos_iof": 0.1,
            "ignore_gt_scale": 0.4,
            "foreground_dominate": True,
            "iou_calculator": {"type": "BboxOverlaps2D"},
        },
        {
            "pos_scale": 0.2,
            "neg_scale": 0.3,
            "min_pos_iof": 0.1,
            "ignore_gt_scale": 0.4,
            "foreground_dominate": True,
        },
    ),
    (
        {
            "type": "GridAssigner",
            "pos_iou_thr": 0.5,
            "neg_iou_thr": [0.1, 0.4],
            "min_pos_iou": 0,
            "gt_max_assign_all": False,
        },
        {
            "pos_iou_thr": 0.5,
            "neg_iou_thr": [0.1, 0.4],
            "min_pos_iou": 0,
            "gt_max_assign_all": False,
            "ignore_iof_thr": None,
            "own_cell": False,
        },
    ),
    (
        {"type": "RegionAssigner", "center_ratio": 0.3, "ignore_ratio": 0.6},
        {"center_ratio": 0.3, "ignore_ratio": 0.6, "ignore_iof_thr": None, "sequential": True},
    ),
    (
        {"type": "UniformAssigner", "pos_ignore_thr": 0.15, "neg_ignore_thr": 0.7, "match_times": 8},
        {
            "pos_ignore_thr": 0.15,
            "neg_ignore_thr": 0.7,
            "match_times": 8,
            "ignore_iof_thr": None,
            "last_choice_wins": True,
            "first_of_equals": False,
        },
    ),
    (
        {
            "type": "ApproxMaxIoUAssigner",
            "pos_iou_thr": 0.5,
            "neg_iou_thr": 0.4,
            "min_pos_iou": 0.1,
            "gt_max_assign_all": False,
            "ignore_iof_thr": 0.6,
            "ignore_wrt_candidates": False,
            "match_low_quality": False,
            "gpu_assign_thr": 100,
        },
        {
            "pos_iou_thr": 0.5,
            "neg_iou_thr": 0.4,
            "min_pos_iou": 0.1,
            "gt_max_assign_all": False,
            "ignore_iof_thr": 0.6,
            "ignore_wrt_candidates": False,
            "match_low_quality": False,
            "match_without_overlap": True,
            "ignore_in_empty_images": False,
        },
    ),
]


@pytest.mark.parametrize(("config", "expected"), CASES, ids=[config["type"] for config, _ in CASES])
def test_every_option_arrives(config, expected):
    translated = translate(config)
    assert translated == {"type": config["type"], **expected}
    assert type(build(translated)).__name__ == config["type"]


@pytest.mark.parametrize("config", [config for config, _ in CASES], ids=[c["type"] for c, _ in CASES])
def test_nothing_is_dropped_silently(config):
    with pytest.raises(TranslationError, match=r"the option 'shape' of .* is not translated"):
        translate({**config, "shape": 1})


@pytest.mark.parametrize("name", ["CenterRegionAssigner", "GridAssigner", "UniformAssigner"])
def test_other_overlaps_have_no_counterpart(name):
    config = next(config for config, _ in CASES if config["type"] == name)
    with pytest.raises(TranslationError, match=r"iou_calculator.type: 'Odd' has no counterpart"):
        translate({**config, "iou_calculator": {"type": "Odd"}})


def test_an_integer_threshold_is_noted():
    config = {"type": "GridAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0}
    (note,) = translation_of(config).notes
    assert str(note).startswith("neg_iou_thr: an integer is a number like any other")
