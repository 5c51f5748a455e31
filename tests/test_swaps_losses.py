"""Every registered classification loss and box loss in the place of a dense head's own: it trains."""

from __future__ import annotations

import pytest
import torch
from detcore_atss import ATSSHead
from detcore_losses import FocalLoss, QualityFocalLoss
from detcore_retina import RetinaHead

from detcore import boxes, registry
from detcore.interfaces import BoxLoss, ClassificationLoss
from detcore.structures import FeatureSpec, ImageBatch
from detcore.testing.data import make_targets

SIZE = (96, 128)
PYRAMID = tuple(FeatureSpec(8, stride) for stride in (8, 16, 32))
COMMON = {"in_features": PYRAMID, "num_classes": 3, "feat_channels": 8, "stacked_convs": 1, "prior_prob": 0.1}
HEADS = {
    "retina": lambda **parts: RetinaHead(**{**COMMON, **parts}),
    "atss": lambda **parts: ATSSHead(**{**COMMON, "num_groups": 4, **parts}),
}


def registered(interface):
    classes = [registry.current().load(entry) for entry in registry.entries("losses")]
    return sorted((c for c in classes if issubclass(c, interface)), key=lambda c: c.__name__)


@pytest.fixture
def features():
    torch.manual_seed(1)
    return tuple(torch.randn(2, f.channels, SIZE[0] // f.stride, SIZE[1] // f.stride) for f in PYRAMID)


@pytest.fixture
def batch():
    return ImageBatch.of(torch.zeros(2, 3, *SIZE), [SIZE, (80, 100)])


def train(head, features, batch, targets, steps=2):
    """Losses of some steps of training, after each of which all is finite."""
    optimizer, found = torch.optim.SGD(head.parameters(), lr=1e-3), []
    for _ in range(steps):
        losses = head.loss(head(features, batch), targets, batch)
        assert all(loss.isfinite() and loss.dim() == 0 for loss in losses.values())
        optimizer.zero_grad()
        losses.total.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
        assert any(p.grad.any() for p in head.parameters())
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        found.append({name: loss.item() for name, loss in losses.items()})
    return found


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("case", ["typical", "none"])
@pytest.mark.parametrize("loss", registered(ClassificationLoss), ids=lambda loss: loss.__name__)
def test_classification_losses(loss, case, name, features, batch):
    torch.manual_seed(0)
    head = HEADS[name](loss_cls=loss.spec())
    found = train(head, features, batch, make_targets(case, size=SIZE))
    assert found[1]["loss_cls"] != found[0]["loss_cls"]
    head.eval()
    scores = head.loss_cls.scores(head(features, batch).logits)
    assert scores.shape[-1] == 3
    head.predict(head(features, batch), batch)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("case", ["typical", "none"])
@pytest.mark.parametrize("loss", registered(BoxLoss), ids=lambda loss: loss.__name__)
def test_box_losses(loss, case, name, features, batch):
    torch.manual_seed(0)
    head = HEADS[name](loss_bbox=loss.spec())
    assert head.compares_boxes == (loss.space == "boxes")
    found = train(head, features, batch, make_targets(case, size=SIZE))
    assert (found[0]["loss_bbox"] > 0) == (case == "typical")


@pytest.mark.parametrize("name", HEADS)
def test_quality_is_the_iou_of_the_decoded_boxes(name, features, batch):
    torch.manual_seed(0)
    head, targets = HEADS[name](loss_cls=QualityFocalLoss.spec()), make_targets("typical", size=SIZE)
    for parameter in head.parameters():  # boxes that differ from the anchors
        parameter.data += 0.1 * torch.randn_like(parameter)
    output = head(features, batch)
    assignment = head.match(output, targets, batch)
    decoded = head.bbox_coder.decode(head.priors(output, batch), output.codes)
    gts = targets.boxes.gather(1, assignment.gt_index[..., None].expand(-1, -1, 4))
    quality = boxes.aligned_overlap(decoded, gts).detach()
    labels = torch.where(assignment.positive, targets.labels.gather(1, assignment.gt_index), 3)
    count = assignment.positive.sum()
    assert quality[assignment.positive].std() > 0.01
    expected = QualityFocalLoss()(
        output.logits, labels, quality=quality, weight=(assignment.state >= 0).float(), avg_factor=count
    )
    losses = head.loss(output, targets, batch)
    torch.testing.assert_close(losses["loss_cls"], expected)
    (gradient,) = torch.autograd.grad(losses["loss_cls"], output.codes, allow_unused=True)
    assert gradient is None  # the quality is a target


def test_learning_goes_on_with_a_quality_loss(features, batch):
    """Some more steps: the loss falls, and the scores of positives follow their quality."""
    torch.manual_seed(0)
    targets = make_targets("typical", size=SIZE)
    head = HEADS["retina"](loss_cls=QualityFocalLoss.spec())
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    totals = []
    for _ in range(12):
        losses = head.loss(head(features, batch), targets, batch)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        totals.append(losses["loss_cls"].item())
    assert totals[-1] < totals[0]


def test_there_is_something_to_swap():
    assert {FocalLoss, QualityFocalLoss} <= {*registered(ClassificationLoss)}
    assert len(registered(ClassificationLoss)) >= 6
    assert len(registered(BoxLoss)) >= 11
