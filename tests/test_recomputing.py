"""Checkpointed activations in real detectors."""

from __future__ import annotations

import copy

import pytest
import torch

pytest.importorskip("detcore_retina")
recomputing = pytest.importorskip("detcore_train.engine.recomputing").recomputing

from detcore_fpn import FPN  # noqa: E402
from detcore_resnet import ResNet  # noqa: E402
from detcore_retina import RetinaHead  # noqa: E402

from detcore.detectors import SingleStageDetector  # noqa: E402


@pytest.mark.parametrize(
    "options",
    [{}, {"norm_eval": True, "frozen_stages": 1}, {"deep_stem": True, "norm": "GN", "num_groups": 4}],
)
@pytest.mark.filterwarnings("ignore:ResNet is trained with")
def test_a_retinanet_trains_the_same(options):
    torch.manual_seed(0)
    model = SingleStageDetector(
        num_classes=3,
        backbone=ResNet(depth=18, base_channels=8, **options),
        neck=FPN.spec(out_channels=16, start_level=1, num_outs=5, add_extra_convs="on_input"),
        head=RetinaHead.spec(feat_channels=16, stacked_convs=1),
    ).train()
    images = [torch.randint(0, 256, (3, 70, 90), dtype=torch.uint8) for _ in range(2)]
    targets = [
        {"boxes": torch.tensor([[5.0, 6.0, 40.0, 50.0]]), "labels": torch.tensor([1])} for _ in range(2)
    ]
    found = []
    for wanted in (False, True):
        own = copy.deepcopy(model)
        with recomputing(own, wanted):
            losses = own(images, targets)
            losses.total.backward()
        found.append(
            (losses, {n: p.grad for n, p in own.named_parameters() if p.grad is not None}, own.state_dict())
        )
    for one, two in zip(*found, strict=True):
        assert one.keys() == two.keys()
        for name in one:
            assert torch.equal(one[name], two[name]), name
