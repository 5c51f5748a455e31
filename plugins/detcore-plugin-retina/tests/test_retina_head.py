import copy
import dataclasses
import pickle
from typing import ClassVar

import pytest
import torch
from detcore_assigners import ATSSAssigner, MaxIoUAssigner
from detcore_losses import CrossEntropyLoss, FocalLoss, GIoULoss, IoULoss, SmoothL1Loss
from detcore_priors import AnchorGenerator
from detcore_samplers import RandomSampler
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from detcore.errors import ConfigError
from detcore.structures import Assignment, FeatureSpec, LevelShape, Priors, Targets
from detcore.testing.data import TARGET_CASES, make_targets

VARIANTS = {
    "default": {},
    "smooth L1": {"loss_bbox": SmoothL1Loss.spec(beta=0.1)},
    "GIoU": {"loss_bbox": GIoULoss.spec()},
    "IoU": {"loss_bbox": IoULoss.spec()},
    "GIoU, said so": {"loss_bbox": GIoULoss.spec(), "reg_decoded_bbox": True},
    "L1 on boxes": {"reg_decoded_bbox": True},
    "softmax": {"loss_cls": CrossEntropyLoss.spec()},
    "random sample": {"sampler": RandomSampler.spec(num=64, pos_fraction=0.5)},
    "ATSS": {"assigner": ATSSAssigner.spec(topk=4)},
    "ATSS by predictions": {"assigner": ATSSAssigner.spec(topk=4, alpha=0.8)},
    "border": {"allowed_border": 0.0, "pos_weight": 2.0},
    "GN": {"norm": "GN", "num_groups": 4},
    "no tower": {"stacked_convs": 0},
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
    cells = 12 * 16 + 6 * 8 + 3 * 4
    assert output.levels == (LevelShape(12, 16), LevelShape(6, 8), LevelShape(3, 4))
    assert output.logits.shape == (2, 9 * cells, 4 if name == "softmax" else 3)
    assert output.codes.shape == (2, 9 * cells, 4)
    assert len(head.priors(output, batch)) == 9 * cells
    assert [level[:3] for level in head.priors(output, batch).levels] == [(12, 16, 9), (6, 8, 9), (3, 4, 9)]


def test_predictions_are_in_the_order_of_the_anchors(make_head, batch):
    """A network that predicts where its cell is, and for which anchor and channel of the cell it speaks."""
    head = make_head(stacked_convs=0)
    anchors, classes = head.num_anchors, 3
    with torch.no_grad():
        for layer, channels in ((head.retina_cls, classes), (head.retina_reg, 4)):
            layer.weight.zero_()
            layer.weight[:, :2, 1, 1] = torch.tensor([1.0, 1000.0])
            layer.bias.copy_(torch.arange(anchors * channels) * 1e6)
    features = []
    for stride in (8, 16, 32):
        y, x = torch.meshgrid(torch.arange(96 // stride), torch.arange(128 // stride), indexing="ij")
        features.append(
            torch.stack([x * stride, y * stride] + [x * 0] * 6)[None].expand(2, -1, -1, -1).double()
        )
    output = head.double()(tuple(features), batch)
    centers = head.priors(output, batch).centers.double()
    anchor = torch.arange(len(centers)) % anchors
    for values, channels in ((output.logits, classes), (output.codes, 4)):
        channel = anchor[:, None] * channels + torch.arange(channels)
        expected = (centers[:, 0] + 1000 * centers[:, 1])[:, None] + channel * 1e6
        assert torch.equal(values[1].round(), expected.round())


def test_the_untrained_head_predicts_rare_objects(features, batch):
    from detcore_retina import RetinaHead

    torch.manual_seed(0)
    pyramid = tuple(FeatureSpec(8, s) for s in (8, 16, 32))
    head = RetinaHead(in_features=pyramid, num_classes=3, feat_channels=8, prior_prob=0.02)
    scores = head.loss_cls.scores(head(features, batch).logits)
    torch.testing.assert_close(scores, torch.full_like(scores, 0.02), rtol=0.05, atol=0)
    assert not head.predict(head(features, batch), batch).valid.any()


# -------------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("case", sorted({*TARGET_CASES} - {"thousands"}))
def test_every_parameter_gets_a_finite_gradient(case, name, make_head, features, batch):
    head = make_head(**VARIANTS[name])
    losses = head.loss(head(features, batch), make_targets(case, size=(96, 128)), batch)
    assert set(losses) == {"loss_cls", "loss_bbox"}
    assert all(loss.isfinite() and loss.dim() == 0 for loss in losses.values())
    losses.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    if case in ("none", "all_ignored"):
        assert losses["loss_bbox"] == 0
        assert losses.metrics["num_positives"] == 0


def test_losses_are_those_of_the_paper(make_head, features, batch, targets):
    head = make_head()
    output = head(features, batch)
    assignment = head.match(output, targets, batch)
    losses = head.loss(output, targets, batch)
    anchors = head.priors(output, batch).boxes

    image, prior = assignment.positive.nonzero(as_tuple=True)
    count = len(prior)
    assert all(assignment.positive.sum(1) > 0)
    assert losses.metrics["num_positives"] == count
    gts = targets.boxes[image, assignment.gt_index[image, prior]]
    wanted = torch.zeros_like(output.logits)
    wanted[image, prior, targets.labels[image, assignment.gt_index[image, prior]]] = 1
    focal = sigmoid_focal_loss(output.logits, wanted, alpha=0.25, gamma=2)[assignment.state >= 0]
    torch.testing.assert_close(losses["loss_cls"], focal.sum() / count)
    codes = head.bbox_coder.encode(Priors(anchors[prior], torch.ones(count, 2)), gts).values
    torch.testing.assert_close(losses["loss_bbox"], (output.codes[image, prior] - codes).abs().sum() / count)


@pytest.mark.parametrize("name", ["GIoU", "L1 on boxes"])
def test_losses_on_boxes(name, make_head, features, batch, targets):
    head = make_head(**VARIANTS[name])
    output = head(features, batch)
    assignment = head.match(output, targets, batch)
    image, prior = assignment.positive.nonzero(as_tuple=True)
    gts = targets.boxes[image, assignment.gt_index[image, prior]]
    boxes = head.bbox_coder.decode(head.priors(output, batch), output.codes)[image, prior]
    if name == "GIoU":
        expected = generalized_box_iou_loss(boxes, gts, reduction="sum")
    else:
        expected = (boxes - gts).abs().sum()
    torch.testing.assert_close(head.loss(output, targets, batch)["loss_bbox"], expected / len(prior))


def test_softmax_has_a_channel_for_the_background(make_head, features, batch, targets):
    head = make_head(loss_cls=CrossEntropyLoss.spec())
    output = head(features, batch)
    assignment = head.match(output, targets, batch)
    labels = torch.where(assignment.positive, targets.labels.gather(1, assignment.gt_index), 3)
    terms = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), labels.flatten(), reduction="none")
    expected = terms[assignment.state.flatten() >= 0].sum() / assignment.positive.sum()
    torch.testing.assert_close(head.loss(output, targets, batch)["loss_cls"], expected)
    assert head.loss_cls.scores(output.logits).shape[-1] == 3


class PerLevel(FocalLoss):
    """A loss whose pieces do not add up: each call is divided by the largest of its own terms."""

    additive: ClassVar = False

    def __init__(self) -> None:
        super().__init__()
        self.rows = []

    def forward(self, pred, target, *, weight=None, avg_factor=None, reduction=None, quality=None):
        self.rows.append(len(pred))
        terms = super().forward(pred, target, weight=weight, reduction="none")
        return terms.sum() / terms.max() / avg_factor


def test_a_loss_that_is_not_additive_goes_level_by_level(make_head, features, batch, targets):
    head = make_head(loss_cls=PerLevel())
    output = head(features, batch)
    loss = head.loss(output, targets, batch)["loss_cls"]
    sizes = [9 * 12 * 16, 9 * 6 * 8, 9 * 3 * 4]
    assert head.loss_cls.rows == [2 * size for size in sizes]
    assignment = head.match(output, targets, batch)
    labels = torch.where(assignment.positive, targets.labels.gather(1, assignment.gt_index), 3)
    terms = FocalLoss()(output.logits, labels, reduction="none") * (assignment.state >= 0)[..., None]
    expected = sum(level.sum() / level.max() for level in terms.split(sizes, 1)) / assignment.positive.sum()
    torch.testing.assert_close(loss, expected)
    loss.backward()


def test_an_image_without_objects_counts_as_one_positive(make_head, features, batch):
    head = make_head()
    output = head(features, batch)
    targets = make_targets("none_in_one", size=(96, 128))
    count = head.match(output, targets, batch).positive.sum()
    both = head.loss(output, targets, batch)["loss_bbox"]
    first = output.replace(logits=output.logits[:1], codes=output.codes[:1])
    alone = head.loss(first, images_of(targets)[0], batches_of(batch)[0])["loss_bbox"]
    torch.testing.assert_close(both * (count + 1), alone * count)


def test_the_batch_is_the_sum_of_its_images(make_head, features, batch, targets):
    head = make_head()
    output = head(features, batch)
    losses, assignment = head.loss(output, targets, batch), head.match(output, targets, batch)
    sums = dict.fromkeys(losses, 0.0)
    for i, (one, small) in enumerate(zip(images_of(targets), batches_of(batch), strict=True)):
        alone = head(tuple(f[i : i + 1] for f in features), small)
        matched = head.match(alone, one, small)
        for name in ("state", "gt_index", "quality"):
            assert torch.equal(getattr(matched, name)[0], getattr(assignment, name)[i])
        for name, value in head.loss(alone, one, small).items():
            sums[name] += value * matched.positive.sum()
    for name, value in losses.items():
        torch.testing.assert_close(value * assignment.positive.sum(), sums[name])


def test_padding_of_the_ground_truth_changes_nothing(make_head, features, batch, targets):
    head = make_head()
    output = head(features, batch)
    more = {
        f.name: torch.cat((getattr(targets, f.name), torch.zeros_like(getattr(targets, f.name))), 1)
        for f in dataclasses.fields(targets)[:4]
    }
    assert head.loss(output, Targets(**more), batch) == head.loss(output, targets, batch)


def test_an_assignment_replaces_the_heads_own(make_head, features, batch, targets):
    head = make_head()
    output = head(features, batch)
    state = torch.full(output.logits.shape[:2], -1, dtype=torch.int8)
    state[0, 7], state[1, 9] = 1, 0
    given = Assignment(torch.ones_like(state, dtype=torch.int64), state, state.float())
    losses = head.loss(output, targets, batch, given)
    wanted = torch.zeros(2, 3)
    wanted[0, targets.labels[0, 1]] = 1
    logits = torch.stack((output.logits[0, 7], output.logits[1, 9]))
    focal = sigmoid_focal_loss(logits, wanted, alpha=0.25, gamma=2)
    torch.testing.assert_close(losses["loss_cls"], focal.sum() / 2)  # one for each image
    assert losses.metrics["num_positives"] == 1


def test_positives_may_weigh_more(make_head, features, batch, targets):
    plain, heavy = make_head(), make_head(pos_weight=3.0)
    output = plain(features, batch)
    assignment = plain.match(output, targets, batch)
    only = assignment.replace(state=torch.where(assignment.positive, 1, -1).to(torch.int8))
    single, triple = (head.loss(output, targets, batch, only)["loss_cls"] for head in (plain, heavy))
    torch.testing.assert_close(triple, single * 3)


def test_a_border_leaves_anchors_out(make_head, features, batch, targets):
    head = make_head(allowed_border=0.0)
    output = head(features, batch)
    assignment = head.match(output, targets, batch)
    boxes = head.priors(output, batch).boxes
    for image, (height, width) in enumerate(batch.sizes.tolist()):
        inside = (boxes[:, :2] >= 0).all(1) & (boxes[:, 2] < width) & (boxes[:, 3] < height)
        assert (assignment.state[image][~inside] == -1).all()
        assert (assignment.state[image][inside] >= 0).any()


def test_a_random_sample_is_averaged_over_all_of_it(make_head, features, batch, targets):
    head = make_head(
        sampler=RandomSampler.spec(num=40, pos_fraction=0.25),
        assigner=MaxIoUAssigner.spec(pos_iou_thr=0.3, neg_iou_thr=0.3),
    )
    output = head(features, batch)
    torch.manual_seed(3)
    losses = head.loss(output, targets, batch)
    assert losses.metrics["num_positives"] == 20
    torch.manual_seed(3)
    sample = head.sampler.sample(head.match(output, targets, batch))
    assert (sample.positive | sample.negative).sum() == 80
    terms = FocalLoss()(
        output.logits, torch.full_like(sample.positive, 3, dtype=torch.int64), reduction="none"
    )
    only_negatives = terms[sample.negative].sum() / 80
    positives = head.loss_cls(
        output.logits[sample.positive],
        targets.labels.gather(1, head.match(output, targets, batch).gt_index)[sample.positive],
        reduction="sum",
    )
    torch.testing.assert_close(losses["loss_cls"], only_negatives + positives / 80)


def test_one_gradient_step_lowers_the_loss(make_head, features, batch, targets):
    head = make_head()
    before = head.loss(head(features, batch), targets, batch).total
    before.backward()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter -= 0.01 * parameter.grad / (parameter.grad.norm() + 1e-9)
    assert head.loss(head(features, batch), targets, batch).total < before


# ---------------------------------------------------------------------------------------------- prediction


def test_detections_do_not_depend_on_the_batch(make_head, features, batch):
    head = make_head()
    together = head.predict(head(features, batch), batch)
    assert together.valid.sum(1).min() > 10
    for i, small in enumerate(batches_of(batch)):
        alone = head.predict(head(tuple(f[i : i + 1] for f in features), small), small)
        for name in ("boxes", "scores", "labels", "valid"):
            torch.testing.assert_close(
                getattr(alone, name)[0], getattr(together, name)[i], rtol=1e-4, atol=1e-4
            )


def test_detections_are_sorted_clipped_and_apart(make_head, features, batch):
    found = make_head().predict(make_head()(features, batch), batch)
    for image, (height, width) in zip(found.unpad(), batch.sizes.tolist(), strict=True):
        assert (image.scores.diff() <= 0).all()
        assert (image.scores > 0.05).all()
        assert (image.boxes >= 0).all()
        assert (image.boxes <= torch.tensor([width, height, width, height])).all()
        assert set(image.labels.tolist()) <= {0, 1, 2}


def test_the_best_detection_is_the_best_anchor(make_head, features, batch):
    head = make_head()
    output = head(features, batch)
    best = output.logits[0].flatten().argmax()
    prior, label = int(best // 3), int(best % 3)
    found = head.predict(output, batch)
    anchor = head.priors(output, batch).gather(torch.tensor([prior]))
    box = head.bbox_coder.decode(anchor, output.codes[0, [prior]], batch.sizes[0])
    torch.testing.assert_close(found.boxes[0, 0], box[0])
    assert found.labels[0, 0] == label
    torch.testing.assert_close(found.scores[0, 0], output.logits[0, prior, label].sigmoid())


# -------------------------------------------------------------------------------------------------- wiring


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"in_features": (FeatureSpec(8, 8), FeatureSpec(16, 16))},
            r"number of channels; got \[8, 16\]; put a neck",
        ),
        ({"in_features": ()}, r"strides"),
        (
            {"prior_generator": AnchorGenerator(ratios=(1.0,), scales=(8.0,), strides=(8, 16))},
            "prior_generator makes priors for 2 levels, the pyramid has 3; leave out its strides",
        ),
        (
            {"prior_generator": AnchorGenerator.spec(ratios=(1.0,), scales=(8.0,), strides=(8, 16))},
            "prior_generator makes priors for 2 levels, the pyramid has 3; leave out its strides",
        ),
        (
            {"loss_bbox": GIoULoss.spec(), "reg_decoded_bbox": False},
            "reg_decoded_bbox should not be false with GIoULoss, which works on boxes; leave it out",
        ),
        ({"norm": "GN", "num_groups": 3}, "num_groups=3 does not divide the 8 channels"),
        ({"loss_bbox": FocalLoss.spec()}, "loss_bbox: expected a BoxLoss, got FocalLoss"),
        ({"stacked_conv": 3}, "did you mean 'stacked_convs'"),
        ({"prior_prob": 1.0}, "prior_prob"),
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
        assert torch.equal(twin(features, batch).codes, expected.codes)


def test_autocast(make_head, features, batch, targets):
    head = make_head()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = head(features, batch)
        losses = head.loss(output, targets, batch)
        found = head.predict(output, batch)
    assert output.logits.dtype == torch.bfloat16
    assert losses.total.dtype == torch.float32
    losses.total.backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())
    exact = head.loss(head(features, batch), targets, batch)
    for name, value in losses.items():
        torch.testing.assert_close(value, exact[name], rtol=0.05, atol=0.01)
    assert found.boxes.dtype == torch.float32
    assert found.scores.dtype == torch.float32
