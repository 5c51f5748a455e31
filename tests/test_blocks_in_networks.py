"""Blocks inside of backbones, necks and region features: they train, are told of progress, and can be dumped."""

import pytest
import torch
from detcore_blocks import (
    DCN,
    BlockNeck,
    BlockSharedHead,
    ContextBlock,
    DCNv2,
    DropBlock,
    GeneralizedAttention,
    NonLocal2d,
    SELayer,
)
from detcore_fpn import FPN
from detcore_rcnn import ConvFCBBoxHead, RPNHead, SingleRoIExtractor, StandardRoIHead
from detcore_resnet import ResLayer, ResNet
from detcore_retina import RetinaHead

from detcore import SingleStageDetector, TwoStageDetector, build, dump

BLOCKS = (
    {"block": DCNv2.spec(), "stages": (3,), "position": "conv2"},
    {"block": DCN.spec(deform_groups=2), "stages": (2,), "position": "conv2", "skip_first": True},
    {"block": ContextBlock.spec(ratio=0.25), "stages": (1, 2)},
    {"block": NonLocal2d.spec(), "stages": (3,), "position": "after_conv2"},
    {
        "block": GeneralizedAttention.spec(num_heads=2),
        "stages": (3,),
        "position": "after_conv2",
        "name": "attention",
    },
    {"block": SELayer.spec(ratio=4), "stages": (1,), "position": "after_conv3", "name": "se"},
    {"block": DropBlock.spec(warmup_iters=10, block_size=3), "stages": (2,), "position": "after_conv1"},
)


def train(model):
    images = [torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8) for _ in range(2)]
    targets = [
        {"boxes": torch.tensor([[10.0, 10.0, 50.0, 40.0]]), "labels": torch.tensor([1])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
    ]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for step in range(2):
        model.train().on_progress(0, step)
        optimizer.zero_grad()
        losses = model(images, targets)
        losses.total.backward()
        optimizer.step()
        assert losses.total.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert model.eval()(images).boxes.isfinite().all()


def retinanet(**backbone):
    torch.manual_seed(0)
    return SingleStageDetector(
        num_classes=3,
        backbone=ResNet(depth=50, base_channels=8, **backbone),
        neck=BlockNeck.spec(
            neck=FPN.spec(out_channels=16, start_level=1, num_outs=5),
            blocks=(ContextBlock.spec(ratio=0.25), DropBlock.spec(warmup_iters=4)),
            levels=(0, 1),
        ),
        head=RetinaHead.spec(feat_channels=16, stacked_convs=1),
    )


def test_a_retinanet_with_blocks_trains():
    train(retinanet(blocks=BLOCKS))


def test_blocks_inside_are_told_of_progress():
    model = retinanet(blocks=BLOCKS)
    drops = [module for module in model.modules() if isinstance(module, DropBlock)]
    assert len(drops) == 6 + 2
    model.on_progress(0, 2)
    assert sorted({round(float(drop.scale), 6) for drop in drops}) == [0.2, 0.5]


def test_it_comes_back_from_its_configuration():
    model = retinanet(blocks=BLOCKS)
    config = dump(model)
    assert config["backbone"]["blocks"][0] == {
        "block": {"type": "detcore-plugin-blocks:DCNv2", "kernel_size": 3, "deform_groups": 1, "bias": False},
        "stages": [3],
        "position": "conv2",
    }
    again = build(config)
    assert dump(again) == config
    again.load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    "shared_head",
    [
        ResLayer.spec(depth=18, base_channels=4),
        BlockSharedHead.spec(blocks=(ContextBlock.spec(ratio=0.25), DCN.spec())),
    ],
    ids=["res_layer", "blocks"],
)  # fmt: skip
def test_a_faster_rcnn_on_the_fourth_stage_trains(shared_head):
    torch.manual_seed(0)
    model = TwoStageDetector(
        num_classes=3,
        backbone=ResNet(
            depth=18, base_channels=4, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,)
        ),
        rpn_head=RPNHead.spec(feat_channels=16),
        roi_head=StandardRoIHead.spec(
            bbox_roi_extractor=SingleRoIExtractor.spec(output_size=14, num_levels=1),
            shared_head=shared_head,
            bbox_head=ConvFCBBoxHead.spec(num_shared_fcs=0, num_shared_convs=0, with_avg_pool=True),
        ),
    )  # fmt: skip
    train(model)
    assert dump(build(dump(model))) == dump(model)
