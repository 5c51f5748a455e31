"""Every registered sampler in a real Faster R-CNN, every box coder and prior generator in a real RetinaNet.

Generated from the registry: a component that somebody adds is trained here without anyone asking. One that needs
arguments has them in a table below; one that cannot serve says why.
"""

import pytest
import torch
from detcore_assigners import ATSSAssigner, MaxIoUAssigner
from detcore_fpn import FPN
from detcore_losses import GIoULoss
from detcore_rcnn import LevelNMSPostprocess, PISARoIHead, RPNHead, Shared2FCBBoxHead, StandardRoIHead
from detcore_resnet import ResNet
from detcore_retina import RetinaHead

from detcore import SingleStageDetector, TwoStageDetector, registry
from detcore.component import Spec
from detcore.signature import signature_of

torch.set_num_threads(1)

#: Arguments of samplers, by name; num and pos_fraction are given to all that take them.
SAMPLERS = {"ScoreHLRSampler": {"max_candidates": 256}}
#: Coders whose arguments are not all optional.
CODERS = {}
#: Coders that no head of 4 codes serves.
NO_CODERS = {"BucketingBBoxCoder": "its code has 56 numbers; the heads of SABL serve it"}
RATIOS = {"ratios": ((2.0,),) * 5, "strides": (8, 16, 32, 64, 128)}
SIZES = {"min_sizes": (16, 32, 64, 96, 128), "max_sizes": (32, 64, 96, 128, 160)}
GENERATORS = {
    "AnchorGenerator": {"ratios": (0.5, 1.0, 2.0), "scales": (4.0,)},
    "LegacyAnchorGenerator": {"ratios": (0.5, 1.0, 2.0), "scales": (4.0,)},
    "SSDAnchorGenerator": {**RATIOS, **SIZES},
    "LegacySSDAnchorGenerator": {**RATIOS, **SIZES},
    "YOLOAnchorGenerator": {"base_sizes": tuple(((s, s), (s, 2 * s)) for s in (16, 32, 48, 64, 96))},
}
#: Points have no extent to compare: they need an assigner by distance, and a coder of distances.
POINTS = {
    "assigner": ATSSAssigner.spec(topk=9),
    "bbox_coder": {"type": "DistancePointBBoxCoder"},
    "loss_bbox": GIoULoss.spec(),
}
HEADS = {"PointGenerator": POINTS, "MlvlPointGenerator": POINTS}


def spec(kind, name, arguments):
    component = registry.resolve(kind, name)
    declared = signature_of(component).parameters
    return Spec(component, {key: value for key, value in arguments.items() if key in declared})


def images_and_targets():
    generator = torch.Generator().manual_seed(3)
    shapes = [(3, 96, 128), (3, 80, 96), (3, 64, 64)]
    images = [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for shape in shapes]
    boxes = ([[8.0, 8, 56, 72], [60, 20, 120, 60]], [[10.0, 10, 70, 60]], [])
    targets = [
        {
            "boxes": torch.tensor(b).reshape(-1, 4),
            "labels": torch.arange(len(b)),
            "ignore": torch.zeros(len(b)).bool(),
        }
        for b in boxes
    ]
    return images, targets


def trains_two_steps(model):
    images, targets = images_and_targets()
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    for _ in range(2):
        optimizer.zero_grad()
        losses = model(images, targets)
        assert losses.total.isfinite()
        losses.total.backward()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, name
                assert parameter.grad.isfinite().all(), name
        optimizer.step()
    assert any(p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)
    with torch.no_grad():
        found = model.eval()(images)
    assert found.boxes[found.valid].isfinite().all()
    return losses


def faster_rcnn(sampler, rpn_sampler=None, roi_head=StandardRoIHead):
    torch.manual_seed(0)
    return TwoStageDetector(
        num_classes=3,
        backbone=ResNet(depth=18, frozen_stages=-1, norm_eval=False),
        neck=FPN.spec(out_channels=16, num_outs=5),
        rpn_head=RPNHead.spec(
            feat_channels=16,
            train_postprocess=LevelNMSPostprocess(nms_pre=100, max_per_img=60),
            postprocess=LevelNMSPostprocess(nms_pre=100, max_per_img=60),
            **({"sampler": rpn_sampler} if rpn_sampler else {}),
        ),
        roi_head=roi_head.spec(bbox_head=Shared2FCBBoxHead.spec(fc_out_channels=16), sampler=sampler),
    )


def retinanet(**head):
    torch.manual_seed(0)
    return SingleStageDetector(
        num_classes=3,
        backbone=ResNet(depth=18, frozen_stages=-1, norm_eval=False),
        neck=FPN.spec(out_channels=16, start_level=1, num_outs=5, add_extra_convs="on_input"),
        head=RetinaHead.spec(feat_channels=16, stacked_convs=1, **head),
    )


def sampler_spec(name, num):
    numbers = {"num": num, "pos_fraction": 0.25}
    return spec("samplers", name, {**numbers, **SAMPLERS.get(name, {})})


@pytest.mark.parametrize("name", registry.names("samplers"))
def test_every_sampler_in_both_stages_of_faster_rcnn(name):
    losses = trains_two_steps(faster_rcnn(sampler_spec(name, 32), sampler_spec(name, 64)))
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox"}


@pytest.mark.parametrize("name", registry.names("samplers"))
def test_every_sampler_in_pisa(name):
    losses = trains_two_steps(faster_rcnn(sampler_spec(name, 32), roi_head=PISARoIHead))
    assert "loss_carl" in losses


@pytest.mark.parametrize("name", registry.names("samplers"))
def test_every_sampler_in_retinanet(name):
    trains_two_steps(retinanet(sampler=sampler_spec(name, 64)))


@pytest.mark.parametrize("name", registry.names("bbox_coders"))
def test_every_coder_of_four_codes_in_retinanet(name):
    if name in NO_CODERS:
        pytest.skip(NO_CODERS[name])
    coder = spec("bbox_coders", name, CODERS.get(name, {}))
    assert coder.build().code_size == 4
    losses = trains_two_steps(retinanet(bbox_coder=coder))
    assert losses["loss_bbox"] > 0


@pytest.mark.parametrize("name", registry.names("bbox_coders"))
def test_every_coder_of_four_codes_with_a_loss_on_boxes(name):
    if name in NO_CODERS:
        pytest.skip(NO_CODERS[name])
    coder = spec("bbox_coders", name, CODERS.get(name, {}))
    losses = trains_two_steps(retinanet(bbox_coder=coder, loss_bbox=GIoULoss.spec()))
    assert losses["loss_bbox"] > 0


@pytest.mark.parametrize("name", registry.names("prior_generators"))
def test_every_prior_generator_in_retinanet(name):
    generator = spec("prior_generators", name, GENERATORS.get(name, {}))
    losses = trains_two_steps(retinanet(prior_generator=generator, **HEADS.get(name, {})))
    assert losses["loss_bbox"] > 0


def test_strides_in_a_spec_win_over_those_of_the_pyramid():
    given = spec(
        "prior_generators", "SSDAnchorGenerator", {**RATIOS, **SIZES, "strides": (9, 18, 36, 72, 144)}
    )
    model = retinanet(prior_generator=given)
    assert model.head.prior_generator.strides == ((9, 9), (18, 18), (36, 36), (72, 72), (144, 144))
    trains_two_steps(model)


def test_hard_examples_are_those_of_the_network():
    """Of one image's regions OHEM takes the ones that the head, as it is, classifies worst."""
    model = faster_rcnn(sampler_spec("OHEMSampler", 8))
    everything = faster_rcnn(sampler_spec("PseudoSampler", 8))
    everything.load_state_dict(model.state_dict())
    images, targets = images_and_targets()
    assert model.train()(images, targets)["loss_cls"] > everything.train()(images, targets)["loss_cls"]


def test_tables_name_what_exists():
    for kind, tables in (
        ("samplers", (SAMPLERS,)),
        ("bbox_coders", (CODERS, NO_CODERS)),
        ("prior_generators", (GENERATORS, HEADS)),
    ):
        assert {name for table in tables for name in table} <= set(registry.names(kind))
    assert MaxIoUAssigner.__name__ in registry.names("assigners")
