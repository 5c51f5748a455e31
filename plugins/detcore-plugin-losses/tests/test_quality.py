"""The losses that regress to the quality of positives."""

import pytest
import torch
from detcore_losses import QualityFocalLoss, VarifocalLoss, lean
from torch.nn import functional as F

from detcore.errors import ConfigError

LOSSES = (QualityFocalLoss, VarifocalLoss)


@pytest.fixture
def inputs():
    torch.manual_seed(2)
    labels = torch.randint(0, 8, (40,))
    quality = torch.rand(40)
    quality[3] = 0
    weight = torch.rand(40) * (torch.rand(40) > 0.3)
    return torch.randn(40, 7) * 3, labels, quality, weight


def dense(labels, quality):
    return F.one_hot(labels, 8)[:, :7] * quality[:, None]


def run(loss, pred, *args, **kwargs):
    leaf = pred.detach().clone().requires_grad_()
    value = loss(leaf, *args, **kwargs)
    (value * torch.arange(1, value.numel() + 1).reshape(value.shape)).sum().backward()
    return value.detach(), leaf.grad


def test_quality_focal_is_the_papers(inputs):
    pred, labels, quality, _ = inputs
    p, target = pred.sigmoid(), dense(labels, quality)
    entropy = F.binary_cross_entropy(p, target, reduction="none")
    for beta in (1.0, 2.0):
        expected = ((target - p).abs() ** beta * entropy).sum(1)
        found = QualityFocalLoss(beta=beta, reduction="none")(pred, labels, quality=quality)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_varifocal_is_the_papers(inputs):
    pred, labels, quality, _ = inputs
    p, target = pred.sigmoid(), dense(labels, quality)
    positive = -target * (target * p.log() + (1 - target) * (1 - p).log())
    negative = -0.6 * p**1.5 * (1 - p).log()
    expected = torch.where(target > 0, positive, negative)
    found = VarifocalLoss(alpha=0.6, gamma=1.5, reduction="none")(pred, labels, quality=quality)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [*LOSSES, lambda **kw: VarifocalLoss(iou_weighted=False, **kw)])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
def test_labels_with_qualities_equal_a_target_per_class(inputs, make, reduction, weighted, monkeypatch):
    monkeypatch.setattr(lean, "CHUNK_CPU", 7 * 12)  # several pieces, the last one smaller
    pred, labels, quality, weight = inputs
    loss, weight = make(reduction=reduction), weight if weighted else None
    sparse = run(loss, pred, labels, weight=weight, quality=quality)
    torch.testing.assert_close(sparse, run(loss, pred, dense(labels, quality), weight=weight))
    monkeypatch.setattr(lean, "may_be_lean", lambda _: False)
    torch.testing.assert_close(sparse, run(loss, pred, labels, weight=weight, quality=quality))
    torch.testing.assert_close(sparse, run(loss, pred, dense(labels, quality), weight=weight))


def test_activated_equals_logits(inputs):
    pred, labels, quality, weight = inputs
    found = QualityFocalLoss(activated=True)(pred.double().sigmoid(), labels, quality=quality, weight=weight)
    torch.testing.assert_close(
        found, QualityFocalLoss()(pred.double(), labels, quality=quality, weight=weight)
    )
    assert QualityFocalLoss(activated=True).scores(torch.tensor([0.25])).tolist() == [0.25]


@pytest.mark.parametrize("make", LOSSES)
def test_without_quality_positives_are_perfect(inputs, make):
    pred, labels, _, _ = inputs
    torch.testing.assert_close(make()(pred, labels), make()(pred, labels, quality=torch.ones(40)))


@pytest.mark.parametrize("make", LOSSES)
def test_quality_of_background_does_not_matter_and_gets_no_gradient(inputs, make):
    pred, labels, quality, _ = inputs
    other = torch.where(labels == 7, 0.5, quality).requires_grad_()
    loss = make()(pred.requires_grad_(), labels, quality=other)
    torch.testing.assert_close(loss, make()(pred, labels, quality=quality))
    loss.backward()
    assert other.grad is None


@pytest.mark.parametrize("make", LOSSES)
@pytest.mark.parametrize("quality", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_extreme_logits(make, quality, dtype):
    pred = torch.tensor([[-6e4, -200.0, -50.0, 0.0, 50.0, 200.0, 6e4]]).T.to(dtype).requires_grad_()
    for label in (0, 1):
        value = make(reduction="none")(
            pred, torch.full((7,), label), quality=torch.full((7,), quality, dtype=dtype)
        )
        (gradient,) = torch.autograd.grad(value.sum(), pred)
        assert value.isfinite().all()
        assert gradient.isfinite().all()
        assert gradient.dtype == dtype


@pytest.mark.parametrize("make", LOSSES)
def test_nothing_large_is_kept_for_the_backward_pass(inputs, make):
    pred, labels, quality, weight = inputs
    kept = []

    def pack(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        make()(pred.requires_grad_(), labels, weight=weight, quality=quality, avg_factor=2.0)
    assert [t.data_ptr() for t in kept if t.numel() >= pred.numel()] == [pred.data_ptr()]


@pytest.mark.parametrize("make", LOSSES)
def test_learned_weights_get_a_gradient(inputs, make):
    pred, labels, quality, weight = inputs
    weight = weight.requires_grad_()
    make(reduction="sum")(pred, labels, weight=weight, quality=quality).backward()
    each = make(reduction="none")(pred, labels, quality=quality)
    each = each.sum(1) if each.dim() == 2 else each
    torch.testing.assert_close(weight.grad[weight > 0], each[weight > 0])


def test_labels_outside_the_classes(inputs):
    pred, _, quality, _ = inputs
    for make in LOSSES:
        background = make()(pred, torch.full((40,), 7), quality=quality)
        torch.testing.assert_close(make()(pred, torch.full((40,), 99), quality=quality), background)
    torch.testing.assert_close(
        QualityFocalLoss()(pred, torch.full((40,), -1)), QualityFocalLoss()(pred, torch.full((40,), 7))
    )
    assert VarifocalLoss()(pred, torch.full((40,), -1)) == 0


@pytest.mark.parametrize("make", LOSSES)
def test_refusals(inputs, make):
    pred, labels, quality, _ = inputs
    with pytest.raises(ConfigError, match=r"quality should have one value per label \[40\], got \[40, 1\]"):
        make()(pred, labels, quality=quality[:, None])
    with pytest.raises(ConfigError, match="weight should have one entry per row"):
        make()(pred, labels, weight=torch.ones(7), quality=quality)
