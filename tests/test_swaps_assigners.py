"""Every registered assigner that a RetinaNet can serve, trained in one.

Generated from the registry: an assigner that somebody adds is trained here without anyone asking. One that needs
arguments, or a head's other parts to suit it, has them in a table below; one that cannot serve says why.
"""

import pytest
import torch
from detcore_assigners import BBoxL1Cost, FocalLossCost
from detcore_fpn import FPN
from detcore_priors import AnchorGenerator
from detcore_resnet import ResNet
from detcore_retina import RetinaHead

from detcore import SingleStageDetector, registry
from detcore.component import Spec

torch.set_num_threads(1)

#: What the head hands to an assigner that asks for it.
SERVED = {"levels", "strides", "logits", "boxes", "batch"}
IOUS = {"pos_iou_thr": 0.5, "neg_iou_thr": 0.4}
ARGUMENTS = {
    "MaxIoUAssigner": IOUS,
    "GridAssigner": IOUS,
    "CenterRegionAssigner": {"pos_scale": 0.2, "neg_scale": 0.5},
    "UniformAssigner": {"pos_ignore_thr": 0.15, "neg_ignore_thr": 0.7},
    "HungarianAssigner": {"match_costs": (FocalLossCost.spec(), BBoxL1Cost.spec())},
}
UNSERVED = {"ApproxMaxIoUAssigner": "a RetinaNet's anchors have no approximations; guided anchoring's have"}
#: One prior per cell, for assigners that think in points.
ONE_PER_CELL = AnchorGenerator.spec(ratios=(1.0,), scales=(8.0,))


def retinanet(assigner, **head):
    torch.manual_seed(0)
    return SingleStageDetector(
        num_classes=3,
        backbone=ResNet(depth=18, base_channels=16),
        neck=FPN.spec(out_channels=16, start_level=1, num_outs=5, add_extra_convs="on_input"),
        head=RetinaHead.spec(feat_channels=16, stacked_convs=1, assigner=assigner, **head),
    )


def images_and_targets(objects):
    generator = torch.Generator().manual_seed(3)
    images = [torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8, generator=generator) for _ in objects]
    targets = []
    for count in objects:
        low = torch.rand(count, 2, generator=generator) * torch.tensor([80.0, 50.0])
        sides = 16 + 28 * torch.rand(count, 2, generator=generator)
        labels = torch.randint(3, (count,), generator=generator)
        targets.append({"boxes": torch.cat([low, low + sides], 1), "labels": labels})
    return images, targets


def trains_two_steps(model, objects):
    images, targets = images_and_targets(objects)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    for _ in range(2):
        optimizer.zero_grad()
        losses = model(images, targets)
        assert losses.total.isfinite()
        losses.total.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        optimizer.step()
    return losses


@pytest.mark.parametrize("priors", [None, ONE_PER_CELL], ids=["nine_per_cell", "one_per_cell"])
@pytest.mark.parametrize("name", registry.names("assigners"))
def test_every_assigner_in_retinanet(name, priors):
    if name in UNSERVED:
        pytest.skip(UNSERVED[name])
    component = registry.resolve("assigners", name)
    assigner = Spec(component, ARGUMENTS.get(name, {}))
    assert assigner.build().needs <= SERVED
    head = {} if priors is None else {"prior_generator": priors}
    losses = trains_two_steps(retinanet(assigner, **head), (3, 1, 0))
    assert losses.metrics["num_positives"] > 0
    empty = trains_two_steps(retinanet(assigner, **head), (0, 0))
    assert empty["loss_bbox"] == 0


def test_tables_name_what_exists():
    assert {*ARGUMENTS, *UNSERVED} <= set(registry.names("assigners"))
