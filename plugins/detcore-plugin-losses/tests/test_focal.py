"""The focal loss: against torchvision, the lean way against the formula, extreme logits."""

import pytest
import torch
from detcore_losses import FocalLoss, lean
from torchvision.ops import sigmoid_focal_loss

from detcore.errors import ConfigError


def one_hot(labels, channels):
    return torch.nn.functional.one_hot(labels, channels + 1)[..., :channels].float()


@pytest.fixture
def inputs():
    torch.manual_seed(3)
    return torch.randn(50, 7) * 4, torch.randint(0, 8, (50,)), torch.rand(50) * (torch.rand(50) > 0.3)


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.0, 0.5), (1.5, 0.9), (0.5, 0.25)])
def test_equals_torchvision(inputs, gamma, alpha):
    pred, labels, _ = inputs
    loss = FocalLoss(gamma=gamma, alpha=alpha, reduction="none")
    expected = sigmoid_focal_loss(pred, one_hot(labels, 7), alpha, gamma)
    torch.testing.assert_close(loss(pred, labels), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss(pred, one_hot(labels, 7)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 3.3])
@pytest.mark.parametrize("weighting", ["none", "rows", "values"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_lean_way_equals_formula(inputs, monkeypatch, gamma, weighting, reduction):
    pred, labels, weight = inputs
    labels = torch.where(torch.arange(50) % 9 == 0, -1, labels)
    weights = {"none": None, "rows": weight, "values": weight[:, None] * torch.rand(50, 7)}[weighting]
    monkeypatch.setattr(lean, "CHUNK_CPU", 7 * 12)  # several pieces, the last one smaller
    found = []
    for answer in (True, False):
        monkeypatch.setattr(lean, "may_be_lean", lambda _, answer=answer: answer)
        leaf = pred.clone().requires_grad_()
        value = FocalLoss(gamma=gamma, reduction=reduction)(leaf, labels, weight=weights)
        (value * torch.arange(1, value.numel() + 1).reshape(value.shape)).sum().backward()
        found.append((value.detach(), leaf.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)
    assert not found[0][1][::9].any()  # negative labels are ignored


def test_labels_above_the_classes_are_background(inputs):
    pred, _, _ = inputs
    loss = FocalLoss()
    torch.testing.assert_close(loss(pred, torch.full((50,), 7)), loss(pred, torch.full((50,), 255)))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("soft", [False, True])
def test_extreme_logits(gamma, dtype, soft):
    pred = torch.tensor([[-6e4, -200.0, -50.0, 0.0, 50.0, 200.0, 6e4]]).T.to(dtype).requires_grad_()
    for label in (0, 1):
        target = torch.full((7,), label)
        target = one_hot(target, 1) if soft else target
        value = FocalLoss(gamma=gamma, reduction="none")(pred, target)
        (gradient,) = torch.autograd.grad(value.sum(), pred)
        assert value.isfinite().all()
        assert gradient.isfinite().all()
        wrong = 6 if label else 0  # label 1 is background, for which a large logit is wrong
        assert value[wrong].detach().item() == pytest.approx(
            (0.75 if label else 0.25) * abs(pred[wrong].detach().item()), rel=1e-2
        )


@pytest.mark.parametrize("target", ["labels", "soft"])
def test_activated_probabilities_at_the_ends(target):
    pred = torch.tensor([[0.0, 1.0, 0.5]]).requires_grad_()
    labels = torch.tensor([1]) if target == "labels" else torch.tensor([[0.0, 1.0, 0.0]])
    value = FocalLoss(activated=True, gamma=0.5)(pred, labels)
    value.backward()
    assert value.isfinite()
    assert pred.grad.isfinite().all()


def test_activated_equals_logits(inputs):
    pred, labels, weight = inputs
    pred = pred.double()
    torch.testing.assert_close(
        FocalLoss(activated=True)(pred.sigmoid(), labels, weight=weight),
        FocalLoss()(pred, labels, weight=weight),
    )


def test_learned_weights_get_a_gradient(inputs):
    pred, labels, weight = inputs
    weight = weight.requires_grad_()
    FocalLoss()(pred, labels, weight=weight).backward()
    each = FocalLoss(reduction="none")(pred, labels).sum(1) / pred.numel()
    torch.testing.assert_close(weight.grad[weight > 0], each[weight > 0])


def test_nothing_large_is_kept_for_the_backward_pass(inputs):
    pred, labels, weight = inputs
    kept = []

    def pack(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        FocalLoss()(pred.requires_grad_(), labels, weight=weight, avg_factor=2.0)
    assert [t.data_ptr() for t in kept if t.numel() >= pred.numel()] == [pred.data_ptr()]


def test_quality_is_not_looked_at(inputs):
    pred, labels, weight = inputs
    torch.testing.assert_close(FocalLoss()(pred, labels, quality=weight), FocalLoss()(pred, labels))


def test_channels_and_scores():
    assert FocalLoss().channels(80) == 80
    logits = torch.tensor([[0.0, -100.0]], dtype=torch.bfloat16)
    assert FocalLoss().scores(logits).tolist() == [[0.5, pytest.approx(0.0)]]
    assert FocalLoss().scores(logits).dtype == torch.float32
    assert FocalLoss(activated=True).scores(torch.tensor([0.25])).tolist() == [0.25]


def test_refusals(inputs):
    pred, labels, _ = inputs
    with pytest.raises(ConfigError, match=r"use_sigmoid should be true.*for a softmax use CrossEntropyLoss"):
        FocalLoss(use_sigmoid=False)
    with pytest.raises(ConfigError, match=r"labels should be integers, got torch\.float32"):
        FocalLoss()(pred, labels.float())
    with pytest.raises(ConfigError, match="alpha"):
        FocalLoss(alpha=2.0)
    with pytest.raises(ConfigError, match="gamma"):
        FocalLoss(gamma=-1)
