"""``torch.compile(fullgraph=True)`` of whole detectors and of target building: one graph, and eager's numbers."""

from __future__ import annotations

import shutil

import pytest
import torch
from detcore_assigners import ATSSAssigner, MaxIoUAssigner
from detcore_atss import ATSSHead
from detcore_coders import DeltaXYWHBBoxCoder
from detcore_fpn import FPN
from detcore_priors import AnchorGenerator
from detcore_rcnn import FCNMaskHead, RPNHead, Shared2FCBBoxHead, SingleRoIExtractor, StandardRoIHead
from detcore_resnet import ResNet
from detcore_retina import RetinaHead
from detcore_samplers import PseudoSampler
from torch import nn

from detcore import SingleStageDetector, TwoStageDetector
from detcore.structures import ImageBatch, Targets
from detcore.targets import class_labels, class_weights, dense_targets

SIZE = (128, 160)
INDUCTOR = pytest.param(
    "inductor", marks=pytest.mark.skipif(shutil.which("c++") is None, reason="inductor needs a C++ compiler")
)


class CountingBackend:
    """Runs the graph as it is, and counts how often one was captured."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def one_stage(head, extra):
    neck = FPN.spec(out_channels=16, start_level=1, num_outs=5, add_extra_convs=extra)
    return SingleStageDetector(
        num_classes=3,
        backbone=ResNet(depth=18),
        neck=neck,
        head=head.spec(feat_channels=16, stacked_convs=1, num_groups=4),
    )


def two_stage(masks):
    own = {"mask_roi_extractor": SingleRoIExtractor.spec(output_size=14),
           "mask_head": FCNMaskHead.spec(conv_out_channels=8)} if masks else {}  # fmt: skip
    return TwoStageDetector(
        num_classes=3,
        backbone=ResNet(depth=18),
        neck=FPN.spec(out_channels=16, num_outs=5),
        rpn_head=RPNHead.spec(feat_channels=16),
        roi_head=StandardRoIHead.spec(bbox_head=Shared2FCBBoxHead.spec(fc_out_channels=32), **own),
    )


DETECTORS = {
    "retinanet": lambda: one_stage(RetinaHead, "on_input"),
    "atss": lambda: one_stage(ATSSHead, "on_output"),
    "faster_rcnn": lambda: two_stage(False),
    "mask_rcnn": lambda: two_stage(True),
}


def detector(name):
    """One that finds something, although it is not trained."""
    torch.manual_seed(0)
    model = DETECTORS[name]().eval()
    for path, parameter in model.named_parameters():
        if path.endswith(("_cls.bias",)) and "head" in path:
            nn.init.constant_(parameter, -2.0 if "rpn" not in path and "fc_cls" not in path else 0.0)
        if path.endswith(("_cls.weight", "_reg.weight")):
            parameter.data.mul_(30)
    return model


def batch_of(count, seed=0):
    pixels = torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(seed))
    return ImageBatch.of(pixels, [(SIZE[0] - 3 * i, SIZE[1] - 5 * i) for i in range(count)])


def varying(batch):
    """The batch, with the number of images declared to vary."""
    for name in ("pixels", "sizes", "padded_sizes", "original_sizes", "scale", "origin", "flip"):
        torch._dynamo.mark_dynamic(getattr(batch, name), 0)
    return batch


def assert_same(got, want, tolerance):
    assert want.valid.any()
    assert torch.equal(got.valid, want.valid)
    assert torch.equal(got.labels, want.labels)
    torch.testing.assert_close(got.boxes, want.boxes, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(got.scores, want.scores, rtol=tolerance, atol=tolerance)
    assert (got.masks is None) == (want.masks is None)
    if want.masks is not None:
        torch.testing.assert_close(got.masks, want.masks, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", DETECTORS)
def test_predict_is_one_graph_for_any_number_of_images(name):
    model, backend = detector(name), CountingBackend()
    predict = torch.compile(model.predict, fullgraph=True, backend=backend)
    with torch.no_grad():
        for count in (2, 3, 5):
            assert_same(predict(varying(batch_of(count, count))), model.predict(batch_of(count, count)), 1e-4)
    assert backend.graphs == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_predict_through_aot_autograd():
    model = detector("retinanet")
    predict = torch.compile(model.predict, fullgraph=True, backend="aot_eager", dynamic=False)
    with torch.no_grad():
        assert_same(predict(batch_of(2)), model.predict(batch_of(2)), 1e-3)


# -------------------------------------------------------------------------------------------- target building

ASSIGNERS = {
    "max_iou": lambda: MaxIoUAssigner(pos_iou_thr=0.5, neg_iou_thr=0.4),
    "atss": lambda: ATSSAssigner(),
}
STRIDES = (8, 16, 32)
GENERATORS = {
    "max_iou": AnchorGenerator(
        ratios=(0.5, 1.0, 2.0), octave_base_scale=4, scales_per_octave=3, strides=STRIDES
    ),
    "atss": AnchorGenerator(ratios=(1.0,), octave_base_scale=8, scales_per_octave=1, strides=STRIDES),
}


def target_building(name):
    """Assignment, sampling, labels, weights and codes of all priors, in fixed shapes."""
    assigner, sampler, coder = ASSIGNERS[name](), PseudoSampler(), DeltaXYWHBBoxCoder()

    def build(priors, targets, batch):
        assignment = assigner.assign(priors, targets, None, batch)
        sample = sampler.sample(assignment)
        boxes = targets.boxes.gather(1, assignment.gt_index[..., None].expand(-1, -1, 4))
        boxes = torch.where(
            sample.positive[..., None], boxes, priors.boxes
        )  # safe where nothing is to be learned
        labels = class_labels(assignment, sample.positive, targets, 3)
        return assignment.state, labels, class_weights(sample), coder.encode(priors, boxes).values

    return build


def ground_truth(rows, count=2, seed=0):
    generator = torch.Generator().manual_seed(seed + rows)
    images = []
    for _ in range(count):
        corner = torch.rand(rows, 2, generator=generator) * 100
        extent = 10 + 40 * torch.rand(rows, 2, generator=generator)
        labels = torch.randint(0, 3, (rows,), generator=generator)
        images.append({"boxes": torch.cat((corner, corner + extent), 1), "labels": labels})
    images[-1] = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return Targets.stack(images)


def priors_of(name, batch):
    return GENERATORS[name]([(SIZE[0] // s, SIZE[1] // s) for s in STRIDES], batch)


@pytest.mark.parametrize("name", ASSIGNERS)
def test_target_building_is_compiled_once_per_power_of_two(name):
    backend, batch, build = CountingBackend(), batch_of(2), target_building(name)
    compiled = torch.compile(build, fullgraph=True, backend=backend, dynamic=False)
    priors = priors_of(name, batch)
    for rows in (3, 4, 5, 6, 8):
        targets = ground_truth(rows)
        got, want = compiled(priors, targets.padded(), batch), build(priors, targets, batch)
        assert (want[0] == 1).any()
        for one, other in zip(got, want, strict=True):
            torch.testing.assert_close(one, other)
    assert backend.graphs == 2  # 4 and 8 rows


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("backend", ["aot_eager", INDUCTOR])
@pytest.mark.parametrize("name", ASSIGNERS)
def test_target_building_through_the_compiler(name, backend):
    batch, build = batch_of(2), target_building(name)
    compiled = torch.compile(build, fullgraph=True, backend=backend, dynamic=False)
    priors, targets = priors_of(name, batch), ground_truth(6)
    for one, other in zip(compiled(priors, targets, batch), build(priors, targets, batch), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_gathered_positives_are_one_graph_where_the_compiler_is_told_to_capture_them():
    batch, assigner, sampler = batch_of(2), ASSIGNERS["max_iou"](), PseudoSampler()

    def build(priors, targets):
        assignment = assigner.assign(priors, targets)
        wanted = dense_targets(
            assignment, sampler.sample(assignment), targets, num_classes=3, subsampled=False
        )
        return wanted.labels, wanted.positives.prior, wanted.positives.boxes, wanted.count

    priors, targets = priors_of("max_iou", batch), ground_truth(6)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        got = torch.compile(build, fullgraph=True, backend="eager", dynamic=False)(priors, targets)
    for one, other in zip(got, build(priors, targets), strict=True):
        torch.testing.assert_close(one, other)
