import copy
import dataclasses
import pickle

import detcore_atss.atss_head as module
import pytest
import torch
from detcore_assigners import MaxIoUAssigner
from detcore_atss import ATSSOutput
from detcore_losses import CrossEntropyLoss, FocalLoss, GIoULoss, IoULoss, L1Loss, SmoothL1Loss
from detcore_priors import AnchorGenerator
from detcore_samplers import RandomSampler
from torch.nn import functional as F
from torch.utils import _pytree
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from detcore.errors import ConfigError
from detcore.structures import Assignment, DenseOutput, FeatureSpec, LevelShape, Targets
from detcore.targets import centerness
from detcore.testing.data import TARGET_CASES, make_targets

VARIANTS = {
    "default": {},
    "L1 on codes": {"loss_bbox": L1Loss.spec()},
    "smooth L1 on boxes": {"loss_bbox": SmoothL1Loss.spec(), "reg_decoded_bbox": True},
    "IoU": {"loss_bbox": IoULoss.spec()},
    "softmax": {"loss_cls": CrossEntropyLoss.spec()},
    "focal centerness": {"loss_centerness": FocalLoss.spec()},
    "random sample": {"sampler": RandomSampler.spec(num=64, pos_fraction=0.5)},
    "max IoU": {"assigner": MaxIoUAssigner.spec(pos_iou_thr=0.5, neg_iou_thr=0.4)},
    "border": {"allowed_border": 0.0, "pos_weight": 2.0},
    "three anchors": {"prior_generator": AnchorGenerator.spec(ratios=(0.5, 1.0, 2.0), scales=(8.0,))},
    "no tower, no norm": {"stacked_convs": 0, "norm": None, "pred_kernel_size": 1},
}


def images_of(targets):
    names = ("boxes", "labels", "valid", "ignore")
    return [Targets(**{name: getattr(targets, name)[i : i + 1] for name in names}) for i in (0, 1)]


def batches_of(batch):
    fields = dataclasses.fields(batch)
    return [type(batch)(**{f.name: getattr(batch, f.name)[i : i + 1] for f in fields}) for i in (0, 1)]


# ------------------------------------------------------------------------------------------------- network


@pytest.mark.parametrize("name", VARIANTS)
def test_shapes(name, make_head, features, batch):
    head = make_head(**VARIANTS[name])
    output = head(features, batch)
    count = (12 * 16 + 6 * 8 + 3 * 4) * (3 if name == "three anchors" else 1)
    assert output.levels == (LevelShape(12, 16), LevelShape(6, 8), LevelShape(3, 4))
    assert output.logits.shape == (2, count, 4 if name == "softmax" else 3)
    assert output.codes.shape == (2, count, 4)
    assert output.centerness.shape == (2, count)
    assert len(head.priors(output, batch)) == count


def test_predictions_are_in_the_order_of_the_anchors(make_head, batch):
    """A network that predicts where its cell is, and for which anchor and channel of the cell it speaks."""
    head = make_head(stacked_convs=0, **VARIANTS["three anchors"]).double()
    with torch.no_grad():
        for layer in (head.atss_cls, head.atss_reg, head.atss_centerness):
            layer.weight.zero_()
            layer.weight[:, :2, 1, 1] = torch.tensor([1.0, 1000.0], dtype=torch.float64)
            layer.bias.copy_(torch.arange(len(layer.bias)) * 1e6)
        for scale in head.scales:
            scale.scale.fill_(1)
    features = []
    for stride in (8, 16, 32):
        y, x = torch.meshgrid(torch.arange(96 // stride), torch.arange(128 // stride), indexing="ij")
        level = torch.stack([x * stride, y * stride] + [x * 0] * 6)
        features.append(level[None].expand(2, -1, -1, -1).double())
    output = head(tuple(features), batch)
    centers = head.priors(output, batch).centers.double()
    place = (centers[:, 0] + 1000 * centers[:, 1]).round()
    anchor = torch.arange(len(centers)) % 3
    for values in (output.logits, output.codes, output.centerness[..., None]):
        channels = values.shape[-1]
        channel = anchor[:, None] * channels + torch.arange(channels)
        assert torch.equal(values[1].round(), place[:, None] + channel * 1e6)


def test_each_level_scales_its_codes(make_head, features, batch):
    head = make_head()
    before = head(features, batch)
    with torch.no_grad():
        head.scales[1].scale *= 3
    after = head(features, batch)
    second = slice(12 * 16, 12 * 16 + 6 * 8)
    torch.testing.assert_close(after.codes[:, second], before.codes[:, second] * 3)
    assert torch.equal(after.codes[:, : second.start], before.codes[:, : second.start])
    assert torch.equal(after.logits, before.logits)
    assert torch.equal(after.centerness, before.centerness)


def test_the_output_is_a_structure(make_head, features, batch):
    output = make_head()(features, batch)
    assert isinstance(output, DenseOutput)
    assert output.to("meta").centerness.is_meta
    leaves, structure = _pytree.tree_flatten(output)
    assert any(leaf is output.centerness for leaf in leaves)
    assert isinstance(_pytree.tree_unflatten(leaves, structure), ATSSOutput)


# -------------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("case", sorted({*TARGET_CASES} - {"thousands"}))
def test_every_parameter_gets_a_finite_gradient(case, name, make_head, features, batch):
    head = make_head(**VARIANTS[name])
    losses = head.loss(head(features, batch), make_targets(case, size=(96, 128)), batch)
    assert set(losses) == {"loss_cls", "loss_bbox", "loss_centerness"}
    assert all(loss.isfinite() and loss.dim() == 0 for loss in losses.values())
    losses.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    if case in ("none", "all_ignored"):
        assert losses["loss_bbox"] == losses["loss_centerness"] == losses.metrics["num_positives"] == 0


@pytest.mark.parametrize("name", ["default", "L1 on codes", "smooth L1 on boxes"])
def test_losses_are_those_of_the_paper(name, make_head, features, batch, targets):
    head = make_head(**VARIANTS[name])
    output = head(features, batch)
    assignment = head.match(output, targets, batch)
    losses = head.loss(output, targets, batch)

    image, prior = assignment.positive.nonzero(as_tuple=True)
    count = len(prior)
    assert all(assignment.positive.sum(1) > 0)
    gts = targets.boxes[image, assignment.gt_index[image, prior]]
    wanted = torch.zeros_like(output.logits)
    wanted[image, prior, targets.labels[image, assignment.gt_index[image, prior]]] = 1
    focal = sigmoid_focal_loss(output.logits, wanted, alpha=0.25, gamma=2)[assignment.state >= 0]
    torch.testing.assert_close(losses["loss_cls"], focal.sum() / count)

    anchors = head.priors(output, batch)
    central = centerness(anchors.centers[prior], gts)
    assert 0 < central.min() < central.max() <= 1
    entropy = F.binary_cross_entropy_with_logits(output.centerness[image, prior], central, reduction="sum")
    torch.testing.assert_close(losses["loss_centerness"], entropy / count)

    codes = output.codes[image, prior]
    boxes = head.bbox_coder.decode(anchors.gather(prior), codes)
    terms = {
        "default": lambda: 2 * generalized_box_iou_loss(boxes, gts, reduction="none"),
        "L1 on codes": lambda: (
            (codes - head.bbox_coder.encode(anchors.gather(prior), gts).values).abs().sum(1)
        ),
        "smooth L1 on boxes": lambda: F.smooth_l1_loss(boxes, gts, reduction="none").sum(1),
    }[name]()
    torch.testing.assert_close(losses["loss_bbox"], (terms * central).sum() / central.sum().clamp(min=1))


def test_positives_beside_their_object_do_not_count(make_head, features, batch, targets):
    """Another assigner may choose anchors whose centres lie outside; their centerness is 0."""
    head = make_head()
    output = head(features, batch)
    state = torch.zeros(output.logits.shape[:2], dtype=torch.int8)
    state[:, -1] = 1  # the last cell, at (96, 64), is in no box of image 0 and in the box of image 1
    given = Assignment(torch.zeros_like(state, dtype=torch.int64), state, state.float())
    only = images_of(targets)[0]
    first = output.replace(logits=output.logits[:1], codes=output.codes[:1], centerness=output.centerness[:1])
    one = Assignment(given.gt_index[:1], given.state[:1], given.quality[:1])
    losses = head.loss(first, only, batches_of(batch)[0], one)
    assert losses["loss_bbox"] == 0
    expected = F.binary_cross_entropy_with_logits(output.centerness[0, -1], torch.tensor(0.0))
    torch.testing.assert_close(losses["loss_centerness"], expected)


def test_both_normalisers_are_averaged_over_processes(make_head, features, batch, targets, monkeypatch):
    head = make_head()
    output = head(features, batch)
    alone = head.loss(output, targets, batch)
    asked = []

    def double(value):
        asked.append(value)
        return value * 2

    monkeypatch.setattr(module, "mean_count", double)
    monkeypatch.setattr("detcore.targets.reduce_mean", double)
    shared = head.loss(output, targets, batch)
    assert len(asked) == 2
    assert asked[0] == alone.metrics["num_positives"]
    for name, value in alone.items():
        torch.testing.assert_close(shared[name], value / 2)


def test_the_batch_is_the_sum_of_its_images(make_head, features, batch, targets):
    head = make_head()
    output = head(features, batch)
    losses, assignment = head.loss(output, targets, batch), head.match(output, targets, batch)
    sums, centers = dict.fromkeys(losses, 0.0), 0.0
    for i, (one, small) in enumerate(zip(images_of(targets), batches_of(batch), strict=True)):
        alone = head(tuple(f[i : i + 1] for f in features), small)
        matched = head.match(alone, one, small)
        for name in ("state", "gt_index", "quality"):
            assert torch.equal(getattr(matched, name)[0], getattr(assignment, name)[i])
        _, prior = matched.positive.nonzero(as_tuple=True)
        gts = one.boxes[0, matched.gt_index[0, prior]]
        central = centerness(head.priors(alone, small).centers[prior], gts).sum()
        assert central > 1  # else it would be taken as 1
        centers += central
        for name, value in head.loss(alone, one, small).items():
            sums[name] += value * (central if name == "loss_bbox" else matched.positive.sum())
    for name, value in losses.items():
        count = centers if name == "loss_bbox" else assignment.positive.sum()
        torch.testing.assert_close(value * count, sums[name])


def test_padding_of_the_ground_truth_changes_nothing(make_head, features, batch, targets):
    head = make_head()
    output = head(features, batch)
    names = ("boxes", "labels", "valid", "ignore")
    more = {n: torch.cat((getattr(targets, n), torch.zeros_like(getattr(targets, n))), 1) for n in names}
    assert head.loss(output, Targets(**more), batch) == head.loss(output, targets, batch)


# ---------------------------------------------------------------------------------------------- prediction


def test_scores_are_multiplied_by_the_centerness(make_head, features, batch):
    head = make_head()
    output = head(features, batch)
    found = head.predict(output, batch)
    products = output.logits.sigmoid() * output.centerness.sigmoid()[..., None]
    for i, image in enumerate(found.unpad()):
        assert len(image) > 10
        assert (image.scores.diff() <= 0).all()
        assert torch.isin(image.scores, products[i].flatten()).all()


def test_detections_do_not_depend_on_the_batch(make_head, features, batch):
    head = make_head()
    together = head.predict(head(features, batch), batch)
    for i, small in enumerate(batches_of(batch)):
        alone = head.predict(head(tuple(f[i : i + 1] for f in features), small), small)
        for name in ("boxes", "scores", "labels", "valid"):
            torch.testing.assert_close(
                getattr(alone, name)[0], getattr(together, name)[i], rtol=1e-4, atol=1e-4
            )


# -------------------------------------------------------------------------------------------------- wiring


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"in_features": (FeatureSpec(8, 8), FeatureSpec(16, 16))},
            r"number of channels; got \[8, 16\]; put a neck",
        ),
        (
            {"prior_generator": AnchorGenerator.spec(ratios=(1.0,), scales=(8.0,), strides=(8, 16))},
            "prior_generator makes priors for 2 levels, the pyramid has 3; leave out its strides",
        ),
        (
            {"reg_decoded_bbox": False},
            "reg_decoded_bbox should not be false with GIoULoss, which works on boxes; leave it out",
        ),
        (
            {"loss_centerness": CrossEntropyLoss.spec()},
            "loss_centerness should be a sigmoid loss, with one logit; CrossEntropyLoss as it is set has 2: "
            "set use_sigmoid",
        ),
        (
            {"loss_centerness": GIoULoss.spec()},
            "loss_centerness: expected a ClassificationLoss, got GIoULoss",
        ),
        ({"pred_kernel_size": 2}, "pred_kernel_size should be odd, so that maps keep their size; got 2"),
        ({"num_groups": 3}, "num_groups=3 does not divide the 8 channels"),
        ({"stacked_conv": 3}, "did you mean 'stacked_convs'"),
    ],
)
def test_what_does_not_fit_is_refused(parameters, message, make_head):
    with pytest.raises(ConfigError, match=message):
        make_head(**parameters)


@pytest.mark.parametrize("name", VARIANTS)
def test_copies_and_pickles(name, make_head, features, batch):
    head = make_head(**VARIANTS[name])
    expected = head(features, batch)
    for twin in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        assert torch.equal(twin(features, batch).centerness, expected.centerness)


def test_autocast(make_head, features, batch, targets):
    head = make_head()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = head(features, batch)
        losses = head.loss(output, targets, batch)
        found = head.predict(output, batch)
    assert output.centerness.dtype == torch.bfloat16
    losses.total.backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())
    exact = head.loss(head(features, batch), targets, batch)
    for name, value in losses.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact[name], rtol=0.05, atol=0.01)
    assert found.boxes.dtype == found.scores.dtype == torch.float32
