"""RetinaNet, composed by hand, against the reference's numbers."""

import pytest
from detcore_assigners import MaxIoUAssigner
from detcore_coders import DeltaXYWHBBoxCoder
from detcore_fpn import FPN
from detcore_resnet import ResNet
from detcore_retina import RetinaHead

from detcore import SingleStageDetector
from detcore.testing.detector_goldens import detector_problems
from detcore.testing.goldens import missing, model, model_names
from detcore.testing.module_goldens import load_reference_weights

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

RULES = ((r"^bbox_head\.", "head."), *FPN.reference_names, *RetinaHead.reference_names)


def retinanet(depth, num_classes):
    return SingleStageDetector(
        num_classes=num_classes,
        backbone=ResNet(depth=depth, frozen_stages=1, norm_eval=True),
        neck=FPN.spec(start_level=1, num_outs=5, add_extra_convs="on_input"),
        head=RetinaHead.spec(
            assigner=MaxIoUAssigner(
                pos_iou_thr=0.5,
                neg_iou_thr=0.4,
                min_pos_iou=0.0,
                match_without_overlap=True,
                ignore_in_empty_images=False,
            ),
            bbox_coder=DeltaXYWHBBoxCoder(empty_size=0),
        ),
    )


def cases():
    for depth in (18, 50):
        for seed in (0, 1):
            if model_names(f"retinanet_r{depth}_fpn", seed=seed):
                marks = [pytest.mark.slow] if depth > 18 else []
                yield pytest.param(depth, seed, id=f"r{depth}-{seed}", marks=marks)


@pytest.mark.parametrize(("depth", "seed"), list(cases()))
def test_retinanet_gives_the_references_numbers(depth, seed):
    meta, data = model(f"retinanet_r{depth}_fpn", seed)
    detector = retinanet(depth, meta["num_classes"])
    load_reference_weights(detector, meta, RULES)
    assert detector_problems(detector, meta, data, RULES) == []
