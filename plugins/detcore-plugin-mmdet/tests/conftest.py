"""What the tests of this package share."""

import pytest
import torch


@pytest.fixture
def retinanet():
    """A small RetinaNet as MMDetection 3.x describes it."""
    return {
        "type": "RetinaNet",
        "data_preprocessor": {
            "type": "DetDataPreprocessor",
            "mean": [123.675, 116.28, 103.53],
            "std": [58.395, 57.12, 57.375],
            "bgr_to_rgb": True,
            "pad_size_divisor": 32,
        },
        "backbone": {
            "type": "ResNet",
            "depth": 18,
            "num_stages": 4,
            "out_indices": (0, 1, 2, 3),
            "frozen_stages": 1,
            "norm_cfg": {"type": "BN", "requires_grad": True},
            "norm_eval": True,
            "style": "pytorch",
            "init_cfg": {"type": "Pretrained", "checkpoint": "torchvision://resnet18"},
        },
        "neck": {
            "type": "FPN",
            "in_channels": [64, 128, 256, 512],
            "out_channels": 16,
            "start_level": 1,
            "add_extra_convs": "on_input",
            "num_outs": 5,
        },
        "bbox_head": {
            "type": "RetinaHead",
            "num_classes": 3,
            "in_channels": 16,
            "stacked_convs": 1,
            "feat_channels": 16,
            "anchor_generator": {
                "type": "AnchorGenerator",
                "octave_base_scale": 4,
                "scales_per_octave": 3,
                "ratios": [0.5, 1.0, 2.0],
                "strides": [8, 16, 32, 64, 128],
            },
            "bbox_coder": {"type": "DeltaXYWHBBoxCoder"},
            "loss_cls": {"type": "FocalLoss", "use_sigmoid": True, "gamma": 2.0, "alpha": 0.25},
            "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
        },
        "train_cfg": {
            "assigner": {"type": "MaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.4, "min_pos_iou": 0},
            "sampler": {"type": "PseudoSampler"},
            "allowed_border": -1,
            "pos_weight": -1,
            "debug": False,
        },
        "test_cfg": {
            "nms_pre": 1000,
            "min_bbox_size": 0,
            "score_thr": 0.05,
            "nms": {"type": "nms", "iou_threshold": 0.5},
            "max_per_img": 100,
        },
    }


@pytest.fixture
def reference_weights(retinanet):
    """Random weights of that model, by MMDetection's names."""
    from detcore_mmdet import from_mmdet

    torch.manual_seed(0)
    names = {"head.": "bbox_head."}
    state = from_mmdet(retinanet, None).state_dict()
    return {
        next(
            (there + n.removeprefix(here) for here, there in names.items() if n.startswith(here)), n
        ): t.clone()
        for n, t in state.items()
    }
