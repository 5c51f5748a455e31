"""The region proposal network."""

import pytest
import torch
from detcore_losses import GIoULoss
from detcore_postprocess import NMSPostprocess
from detcore_rcnn import LevelNMSPostprocess
from detcore_samplers import PseudoSampler, RandomSampler

from detcore.errors import ConfigError
from detcore.structures import FeatureSpec


def test_shapes(make_rpn, make_features):
    features, batch = make_features()
    head = make_rpn()
    output = head(features, batch)
    count = 3 * sum(f.shape[-2] * f.shape[-1] for f in features)
    assert output.logits.shape == (2, count, 1)
    assert output.codes.shape == (2, count, 4)
    assert len(head.priors(output, batch)) == count


@pytest.mark.parametrize("counts", [(3, 2), (0, 0), (0, 2), (1, 1), (500, 500)])
@pytest.mark.parametrize("sampler", [RandomSampler.spec(num=256, pos_fraction=0.5), PseudoSampler.spec()])
def test_every_parameter_gets_a_finite_gradient(make_rpn, make_features, make_targets, counts, sampler):
    features, batch = make_features()
    head = make_rpn(sampler=sampler)
    losses = head.loss(head(features, batch), make_targets(*counts), batch)
    assert list(losses) == ["loss_rpn_cls", "loss_rpn_bbox"]
    losses.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    if not any(counts):
        assert losses["loss_rpn_bbox"] == 0


def test_the_classes_of_objects_make_no_difference(make_rpn, make_features, make_targets):
    features, batch = make_features()
    head = make_rpn(sampler=PseudoSampler())
    targets = make_targets(4, 3)
    output = head(features, batch)
    other = targets.replace(labels=targets.labels + 60)
    assert head.loss(output, targets, batch).total == head.loss(output, other, batch).total


def test_a_given_assignment_is_used(make_rpn, make_features, make_targets):
    features, batch = make_features()
    head = make_rpn(sampler=PseudoSampler())
    targets, output = make_targets(4, 3), head(features, batch)
    nothing = head.match(output, make_targets(0, 0), batch)
    assert head.loss(output, targets, batch, nothing)["loss_rpn_bbox"] == 0
    assert head.loss(output, targets, batch)["loss_rpn_bbox"] > 0


def test_proposals_are_sorted_clipped_and_without_gradient(make_rpn, make_features):
    features, batch = make_features()
    head = make_rpn().eval()
    proposals = head.propose(head(features, batch), batch)
    assert proposals.boxes.shape == (2, 1000, 4)
    assert not proposals.boxes.requires_grad
    assert not proposals.scores.requires_grad
    for i, (height, width) in enumerate(batch.sizes.tolist()):
        kept = proposals.valid[i]
        assert 0 < kept.sum() < 1000
        boxes, scores = proposals.boxes[i][kept], proposals.scores[i][kept]
        assert (scores.diff() <= 0).all()
        assert (boxes >= 0).all()
        assert (boxes[:, 2] <= width).all()
        assert (boxes[:, 3] <= height).all()
        assert not proposals.boxes[i][~kept].any()


def test_settings_of_training(make_rpn, make_features):
    features, batch = make_features()
    head = make_rpn(
        train_postprocess=LevelNMSPostprocess(max_per_img=7), postprocess=LevelNMSPostprocess(max_per_img=5)
    )
    output = head(features, batch)
    assert head.train().propose(output, batch).boxes.shape[1] == 7
    assert head.eval().propose(output, batch).boxes.shape[1] == 5
    assert head.train().predict(output, batch).boxes.shape[1] == 5


def test_batch_equals_singles(make_rpn, make_features):
    features, batch = make_features()
    head = make_rpn().eval()
    both = head.propose(head(features, batch), batch)
    for i in range(2):
        one = type(batch).of(batch.pixels[i : i + 1], batch.sizes[i : i + 1].tolist())
        single = head.propose(head(tuple(f[i : i + 1] for f in features), one), one)
        torch.testing.assert_close(single.boxes[0], both.boxes[i], rtol=1e-4, atol=1e-3)
        assert torch.equal(single.valid[0], both.valid[i])


def test_detections_have_class_0(make_rpn, make_features):
    features, batch = make_features()
    head = make_rpn()
    found = head.predict(head(features, batch), batch)
    assert not found.labels.any()
    torch.testing.assert_close(found.boxes, head.eval().propose(head(features, batch), batch).boxes)


def test_another_postprocess(make_rpn, make_features):
    features, batch = make_features()
    head = make_rpn(postprocess=NMSPostprocess(score_thr=0.9, max_per_img=10)).eval()
    found = head.propose(head(features, batch), batch)
    assert (found.scores[found.valid] > 0.9).all()


def test_loss_on_boxes(make_rpn, make_features, make_targets):
    features, batch = make_features()
    head = make_rpn(loss_bbox=GIoULoss(), num_convs=2)
    loss = head.loss(head(features, batch), make_targets(3, 2), batch)["loss_rpn_bbox"]
    assert 0 < loss < 2


def test_allowed_border(make_rpn, make_features, make_targets):
    features, batch = make_features()
    targets = make_targets(3, 2)
    strict = make_rpn(allowed_border=0)
    output = strict(features, batch)
    outside = (strict.priors(output, batch).boxes < 0).any(-1)
    assert (strict.match(output, targets, batch).state[:, outside] == -1).all()
    assert (make_rpn().match(output, targets, batch).state[:, outside] == 0).any()


def test_levels_of_different_channels_are_refused(make_rpn):
    with pytest.raises(ConfigError, match=r"same number of channels; got \[8, 4\]"):
        type(make_rpn())(in_features=(FeatureSpec(8, 4), FeatureSpec(4, 8)))
