"""The seesaw loss: counts, its two terms, degenerate batches."""

import math

import pytest
import torch
from detcore_losses import SeesawLoss
from torch.nn import functional as F

from detcore.errors import ConfigError

K = 4


@pytest.fixture
def inputs():
    torch.manual_seed(6)
    return torch.randn(20, K + 2) * 2, torch.tensor([0, 1, 2, 3, 4] * 4)


def seesaw_of_row(logits, label, counts, p=0.8, q=2.0, eps=1e-2):
    """The paper's sum for one row, class by class."""
    scores = logits.softmax(0)
    total = 0.0
    for j in range(K):
        mitigation = min(1.0, (max(counts[j], 1) / max(counts[label], 1)) ** p)
        ratio = scores[j] / max(scores[label], eps)
        compensation = ratio**q if ratio > 1 else 1.0
        total += (1.0 if j == label else mitigation * compensation) * math.exp(logits[j])
    return -math.log(math.exp(logits[label]) / total)


def test_is_the_papers(inputs):
    pred, labels = inputs
    loss = SeesawLoss(num_classes=K)
    seen = torch.tensor([100.0, 10.0, 1.0, 0.0, 7.0])
    loss.cum_samples.copy_(seen)
    objectness, classes = loss.terms(pred, labels, reduction="none")
    counts = (seen + 4).tolist()
    for i, label in enumerate(labels.tolist()):
        expected = 0.0 if label == K else seesaw_of_row(pred[i, :K], label, counts)
        assert classes[i].item() == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(
        objectness, F.cross_entropy(pred[:, K:], (labels == K).long(), reduction="none")
    )
    torch.testing.assert_close(loss.cum_samples, seen + 4)


def test_without_counts_and_compensation_it_is_cross_entropy(inputs):
    pred, labels = inputs
    loss = SeesawLoss(num_classes=K, p=0, q=0)
    expected = F.cross_entropy(pred[:, :K], labels, reduction="none", ignore_index=K)
    torch.testing.assert_close(loss.terms(pred, labels, reduction="none").classes, expected)


def test_reductions(inputs):
    pred, labels = inputs
    weight = torch.rand(20)

    def value(**kwargs):
        return SeesawLoss(num_classes=K)(pred, labels, **kwargs)

    objectness, classes = SeesawLoss(num_classes=K).terms(pred, labels, weight=weight, reduction="none")
    torch.testing.assert_close(value(weight=weight, reduction="none"), objectness + classes)
    torch.testing.assert_close(value(weight=weight, reduction="sum"), (objectness + classes).sum())
    torch.testing.assert_close(value(weight=weight, avg_factor=5.0), (objectness + classes).sum() / 5)
    torch.testing.assert_close(value(weight=weight), objectness.mean() + classes.sum() / 16)
    torch.testing.assert_close(
        SeesawLoss(num_classes=K, loss_weight=3)(pred, labels), 3 * value(), rtol=1e-5, atol=0
    )
    with pytest.raises(ValueError, match="avg_factor replaces the divisor of a mean"):
        value(reduction="sum", avg_factor=2.0)


def test_leading_dimensions(inputs):
    pred, labels = inputs
    each = SeesawLoss(num_classes=K)(pred, labels, reduction="none")
    split = SeesawLoss(num_classes=K)(pred.reshape(4, 5, -1), labels.reshape(4, 5), reduction="none")
    torch.testing.assert_close(split.flatten(), each)


def test_rows_of_weight_zero_count_only_on_request(inputs):
    pred, labels = inputs
    weight = (torch.arange(20) >= 5).float()
    loss = SeesawLoss(num_classes=K)
    loss(pred, labels, weight=weight)
    assert loss.cum_samples.tolist() == [3] * 5
    loss = SeesawLoss(num_classes=K, count_ignored=True)
    loss(pred, labels, weight=weight)
    assert loss.cum_samples.tolist() == [4] * 5


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_rows_of_weight_zero_do_not_matter(inputs, bad):
    pred, labels = inputs
    weight = torch.ones(20)
    weight[:2] = 0
    spoilt = pred.clone()
    spoilt[:2] = bad
    found = []
    for one in (pred, spoilt):
        leaf = one.clone().requires_grad_()
        value = SeesawLoss(num_classes=K)(leaf, labels, weight=weight)
        value.backward()
        found.append((value.detach(), leaf.grad))
    torch.testing.assert_close(*found)
    assert not found[0][1][:2].any()


def test_negative_labels_are_ignored(inputs):
    pred, labels = inputs
    odd = torch.where(torch.arange(20) < 5, -1, labels)
    loss = SeesawLoss(num_classes=K)
    each = loss(pred, odd, reduction="none")
    assert not each[:5].any()
    assert loss.cum_samples.tolist() == [3] * 5


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("rows", [0, 3])
def test_nothing_and_only_background(reduction, rows):
    pred = torch.randn(rows, K + 2, requires_grad=True)
    loss = SeesawLoss(num_classes=K)
    terms = loss.terms(pred, torch.full((rows,), K), reduction=reduction)
    assert terms.classes == 0
    assert (terms.objectness == 0) == (rows == 0)
    sum(terms).backward()
    assert pred.grad.isfinite().all()
    assert not pred.grad[:, :K].any()


def test_only_training_with_gradients_counts(inputs):
    loss = SeesawLoss(num_classes=K)
    with torch.no_grad():
        loss(*inputs)
    loss.eval()
    loss(*inputs)
    assert not loss.cum_samples.any()


def test_state_is_saved(inputs):
    loss = SeesawLoss(num_classes=K)
    loss(*inputs)
    other = SeesawLoss(num_classes=K)
    other.load_state_dict(loss.state_dict())
    torch.testing.assert_close(other(*inputs), loss(*inputs))


def test_gradcheck(inputs):
    """Compensation counts as a constant, so without it."""
    pred, labels = inputs
    loss = SeesawLoss(num_classes=K, q=0).double()
    loss.cum_samples.copy_(torch.tensor([50.0, 4.0, 1.0, 0.0, 0.0]))
    loss.eval()
    assert torch.autograd.gradcheck(lambda p: loss(p, labels), pred.double().requires_grad_())


def test_channels_and_scores(inputs):
    pred, _ = inputs
    loss = SeesawLoss(num_classes=K)
    assert loss.channels(K) == K + 2
    scores = loss.scores(pred)
    assert scores.shape == (20, K)
    torch.testing.assert_close(scores.sum(1), pred[:, K:].softmax(1)[:, 0])


def test_extreme_logits():
    pred = torch.tensor([[1e4, -1e4, 0.0, 5.0, 1e4, -1e4]] * 5).requires_grad_()
    value = SeesawLoss(num_classes=K)(pred, torch.arange(5))
    value.backward()
    assert value.isfinite()
    assert pred.grad.isfinite().all()


@pytest.mark.slow
def test_compiles_whole(inputs):
    torch.compiler.reset()
    loss, compiled = SeesawLoss(num_classes=K), SeesawLoss(num_classes=K)
    run = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        torch.testing.assert_close(run(*inputs), loss(*inputs))
    torch.testing.assert_close(compiled.cum_samples, loss.cum_samples)


def test_refusals(inputs):
    pred, labels = inputs
    with pytest.raises(ConfigError, match=r"pred should have num_classes \+ 2 = 9 channels, got 6"):
        SeesawLoss(num_classes=7)(pred, labels)
    with pytest.raises(ConfigError, match="target should hold labels, not a value per logit"):
        SeesawLoss(num_classes=K)(pred, pred)
    with pytest.raises(ConfigError, match="num_classes"):
        SeesawLoss()
