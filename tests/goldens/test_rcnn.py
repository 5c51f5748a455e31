"""Two-stage detectors, composed by hand, against the reference's numbers."""

import pytest
from detcore_assigners import MaxIoUAssigner
from detcore_coders import DeltaXYWHBBoxCoder
from detcore_fpn import FPN
from detcore_losses import GIoULoss, SmoothL1Loss
from detcore_postprocess import NMSPostprocess
from detcore_rcnn import (
    CascadeRoIHead,
    ConvFCBBoxHead,
    FCNMaskHead,
    LevelNMSPostprocess,
    RPNHead,
    Shared2FCBBoxHead,
    SingleRoIExtractor,
    StandardRoIHead,
)
from detcore_resnet import ResNet
from detcore_samplers import RandomSampler

from detcore import SingleStageDetector, TwoStageDetector
from detcore.testing.detector_goldens import detector_problems
from detcore.testing.goldens import missing, model, model_names
from detcore.testing.module_goldens import load_reference_weights
from detcore.testing.two_stage_goldens import two_stage_problems

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

RULES = (*FPN.reference_names, *ConvFCBBoxHead.reference_names)
EVERYTHING = RandomSampler.spec(num=1_000_000, pos_fraction=0.5)  # the goldens were made without chance


def assigner(**arguments):
    return MaxIoUAssigner.spec(ignore_in_empty_images=False, **arguments)


def rpn(**arguments):
    return RPNHead.spec(
        assigner=assigner(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3),
        sampler=EVERYTHING,
        bbox_coder=DeltaXYWHBBoxCoder.spec(empty_size=0),
        train_postprocess=LevelNMSPostprocess.spec(nms_pre=400, max_per_img=48),
        postprocess=LevelNMSPostprocess.spec(nms_pre=400, max_per_img=64),
        **arguments,
    )


def roi_head(**arguments):
    low_quality = "mask_head" in arguments
    return StandardRoIHead.spec(
        assigner=assigner(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=low_quality),
        sampler=EVERYTHING,
        postprocess=NMSPostprocess.spec(score_thr=0.01, nms_pre=None, min_bbox_size=None),
        **arguments,
    )


def resnet(depth, style="pytorch"):
    return ResNet(
        depth=depth, style=style, frozen_stages=1, norm_eval=True, norm_requires_grad=style == "pytorch"
    )


def faster_rcnn(depth, num_classes, style="pytorch", **arguments):
    return TwoStageDetector(
        num_classes=num_classes,
        backbone=resnet(depth, style),
        neck=FPN.spec(num_outs=5),
        rpn_head=rpn(),
        roi_head=roi_head(**arguments),
    )


def both_seeds(*names, marks=()):
    for name in names:
        for seed in (0, 1):
            if name in model_names(name, seed=seed):
                yield pytest.param(name, seed, id=f"{name}-{seed}", marks=marks)


def problems(detector, name, seed):
    meta, data = model(name, seed)
    load_reference_weights(detector, meta, RULES)
    return two_stage_problems(detector, meta, data, RULES)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seed"), list(both_seeds("rpn_r50_fpn")))
def test_rpn(name, seed):
    meta, data = model(name, seed)
    detector = SingleStageDetector(
        num_classes=meta["num_classes"], backbone=resnet(50), neck=FPN.spec(num_outs=5), head=rpn()
    )
    rules = ((r"^bbox_head\.", "head."), *RULES)
    load_reference_weights(detector, meta, rules)
    assert detector_problems(detector, meta, data, rules) == []


@pytest.mark.parametrize(("name", "seed"), list(both_seeds("giou_faster_rcnn_r18")))
def test_faster_rcnn_with_a_loss_on_boxes(name, seed):
    meta, _ = model(name, seed)
    bbox_head = Shared2FCBBoxHead.spec(loss_bbox=GIoULoss.spec(loss_weight=10.0))
    assert problems(faster_rcnn(18, meta["num_classes"], bbox_head=bbox_head), name, seed) == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seed"), list(both_seeds("faster_rcnn_r50_fpn")))
def test_faster_rcnn(name, seed):
    meta, _ = model(name, seed)
    assert problems(faster_rcnn(50, meta["num_classes"]), name, seed) == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seed"), list(both_seeds("faster_rcnn_r101_fpn")))
def test_faster_rcnn_r101(name, seed):
    meta, _ = model(name, seed)
    assert problems(faster_rcnn(101, meta["num_classes"]), name, seed) == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seed"), list(both_seeds("faster_rcnn_r50_fpn_3class")))
def test_faster_rcnn_of_three_classes(name, seed):
    assert problems(faster_rcnn(50, 3, "caffe"), name, seed) == []


MASKS = {"mask_roi_extractor": SingleRoIExtractor.spec(output_size=14), "mask_head": FCNMaskHead.spec()}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seed"), list(both_seeds("mask_rcnn_r50_fpn")))
def test_mask_rcnn(name, seed):
    meta, _ = model(name, seed)
    assert problems(faster_rcnn(50, meta["num_classes"], **MASKS), name, seed) == []


def cascade(num_classes, **arguments):
    strictness = (0.5, 0.6, 0.7)
    spread = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
    return TwoStageDetector(
        num_classes=num_classes,
        backbone=resnet(50),
        neck=FPN.spec(num_outs=5),
        rpn_head=rpn(loss_bbox=SmoothL1Loss.spec(beta=1 / 9), allowed_border=0),
        roi_head=CascadeRoIHead.spec(
            bbox_head=tuple(
                Shared2FCBBoxHead.spec(
                    reg_class_agnostic=True,
                    bbox_coder=DeltaXYWHBBoxCoder.spec(target_stds=stds),
                    loss_bbox=SmoothL1Loss.spec(beta=1.0),
                )
                for stds in spread
            ),
            assigner=tuple(
                assigner(pos_iou_thr=iou, neg_iou_thr=iou, min_pos_iou=iou, match_low_quality=False)
                for iou in strictness
            ),
            sampler=EVERYTHING,
            postprocess=NMSPostprocess.spec(score_thr=0.01, nms_pre=None, min_bbox_size=None),
            **arguments,
        ),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "seed"), list(both_seeds("cascade_rcnn_r50_fpn", "cascade_mask_rcnn_r50_fpn"))
)
def test_cascade_rcnn(name, seed):
    meta, _ = model(name, seed)
    assert problems(cascade(meta["num_classes"], **(MASKS if "mask" in name else {})), name, seed) == []
