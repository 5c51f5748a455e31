"""Losses of heat maps, distributions, masks and embeddings."""

import pytest
import torch
from detcore_losses import (
    AssociativeEmbeddingLoss,
    DiceLoss,
    DistributionFocalLoss,
    GaussianFocalLoss,
    KnowledgeDistillationKLDivLoss,
    lean,
)
from torch.nn import functional as F

from detcore.errors import ConfigError

# ------------------------------------------------------------------------------------------ Gaussian focal


@pytest.fixture
def maps():
    torch.manual_seed(7)
    target = torch.rand(2, 3, 5, 6)
    target.view(-1)[[3, 50, 111]] = 1
    return torch.rand(2, 3, 5, 6) * 0.98 + 0.01, target


def test_gaussian_focal_is_the_papers(maps, monkeypatch):
    monkeypatch.setattr(lean, "CHUNK_CPU", 50)  # several pieces, the last one smaller
    p, target = maps
    positive = -((1 - p) ** 2) * p.log()
    negative = -((1 - target) ** 4) * p**2 * (1 - p).log()
    expected = torch.where(target == 1, positive, negative)
    loss = GaussianFocalLoss(pos_weight=0.5, neg_weight=2, reduction="none")
    torch.testing.assert_close(loss(p, target), torch.where(target == 1, 0.5, 2.0) * expected)
    leaf, plain = p.clone().requires_grad_(), p.clone().requires_grad_()
    weight = torch.rand(2, 3, 5, 1)
    (GaussianFocalLoss()(leaf, target, weight=weight) * 3).backward()
    monkeypatch.setattr(lean, "may_be_lean", lambda _: False)
    (GaussianFocalLoss()(plain, target, weight=weight) * 3).backward()
    torch.testing.assert_close(leaf.grad, plain.grad)


def test_gaussian_focal_keeps_only_its_inputs(maps):
    p, target = maps
    kept = []

    def pack(tensor):
        kept.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        GaussianFocalLoss()(p.requires_grad_(), target)
    assert {*kept} == {p.data_ptr(), target.data_ptr()}


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_probabilities_at_the_ends(alpha):
    p = torch.tensor([0.0, 1.0, 0.0, 1.0]).requires_grad_()
    value = GaussianFocalLoss(alpha=alpha)(p, torch.tensor([0.0, 0.0, 1.0, 1.0]))
    value.backward()
    assert value.isfinite()
    assert p.grad.isfinite().all()


@pytest.fixture
def stated():
    """Rows of logits with the places of the positives, one of them twice."""
    torch.manual_seed(8)
    places = {"pos_inds": torch.tensor([1, 4, 4, 9]), "pos_labels": torch.tensor([0, 2, 2, 1])}
    return torch.rand(12, 3) * 0.9 + 0.05, torch.rand(12, 3), places


def test_stated_positives(stated):
    p, target, places = stated
    loss = GaussianFocalLoss()
    positive = -((1 - p) ** 2 * p.log())[tuple(places.values())]
    negative = -((1 - target) ** 4) * p**2 * (1 - p).log()
    torch.testing.assert_close(loss(p, target, reduction="sum", **places), positive.sum() + negative.sum())
    torch.testing.assert_close(
        loss(p, target, avg_factor=4.0, **places), (positive.sum() + negative.sum()) / 4
    )
    torch.testing.assert_close(loss(p, target, **places), positive.mean() + negative.mean())
    each = loss(p, target, reduction="none", **places)
    torch.testing.assert_close(each.sum(), positive.sum() + negative.sum())
    torch.testing.assert_close(each[4, 2], negative[4, 2] + 2 * positive[1])


def test_stated_positives_with_weights(stated):
    p, target, places = stated
    spoilt = p.clone()
    spoilt[4] = float("nan")
    weight = torch.ones(12)
    weight[4] = 0
    leaf = spoilt.requires_grad_()
    value = GaussianFocalLoss()(leaf, target, weight=weight, avg_factor=1.0, **places)
    value.backward()
    assert value.isfinite()
    assert leaf.grad.isfinite().all()
    others = torch.arange(12) != 4
    kept = {"pos_inds": torch.tensor([1, 8]), "pos_labels": torch.tensor([0, 1])}
    torch.testing.assert_close(
        value.detach(), GaussianFocalLoss()(p[others], target[others], avg_factor=1.0, **kept)
    )


def test_no_stated_positives(stated):
    p, target, _ = stated
    nothing = torch.zeros(0, dtype=torch.int64)
    for rows in (0, 12):
        leaf = p[:rows].clone().requires_grad_()
        value = GaussianFocalLoss()(leaf, target[:rows], pos_inds=nothing, pos_labels=nothing)
        value.backward()
        assert value.isfinite()
        assert leaf.grad.isfinite().all()


def test_places_need_channels(stated):
    p, target, places = stated
    with pytest.raises(ConfigError, match="pos_inds and pos_labels belong together; give both or neither"):
        GaussianFocalLoss()(p, target, pos_inds=places["pos_inds"])


# ------------------------------------------------------------------------------------------ distributions


def test_distribution_focal_shares_between_neighbours():
    pred = torch.randn(3, 5)
    logs = pred.log_softmax(1)
    found = DistributionFocalLoss(reduction="none")(pred, torch.tensor([0.0, 1.25, 3.9]))
    expected = [-logs[0, 0], -0.75 * logs[1, 1] - 0.25 * logs[1, 2], -0.1 * logs[2, 3] - 0.9 * logs[2, 4]]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-5, atol=1e-5)


def test_distribution_focal_at_and_beyond_the_ends():
    pred = torch.randn(3, 5)
    found = DistributionFocalLoss(reduction="none")(pred, torch.tensor([4.0, 9.0, -1.0]))
    logs = pred.log_softmax(1)
    torch.testing.assert_close(found, -torch.stack((logs[0, 4], logs[1, 4], logs[2, 0])))


@pytest.mark.parametrize("shape", [(3, 5), (3,)])
def test_distribution_focal_refuses(shape):
    pred = torch.randn(3, 5) if shape == (3, 5) else torch.randn(3, 1)
    with pytest.raises(ConfigError, match="target should have the shape of pred without the bins"):
        DistributionFocalLoss()(pred, torch.zeros(shape))


def test_distillation_is_the_divergence():
    student, teacher = torch.randn(6, 4), torch.randn(6, 4)
    p = (teacher / 3).softmax(1)
    expected = (p * (p.log() - (student / 3).log_softmax(1))).mean(1) * 9
    loss = KnowledgeDistillationKLDivLoss(temperature=3, reduction="none")
    torch.testing.assert_close(loss(student, teacher), expected)
    assert loss(teacher, teacher).abs().max() < 1e-6
    teacher.requires_grad_()
    loss(student.requires_grad_(), teacher).sum().backward()
    assert teacher.grad is None


def test_temperature_is_checked():
    with pytest.raises(ConfigError, match="temperature"):
        KnowledgeDistillationKLDivLoss(temperature=0)


# -------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("naive", [False, True])
def test_dice_of_known_masks(naive):
    target = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    loss = DiceLoss(activate=False, naive_dice=naive, eps=1e-6)
    assert loss(target, target) == pytest.approx(0, abs=1e-5)
    assert loss(1 - target, target) == pytest.approx(1, abs=1e-5)
    assert loss(torch.ones(1, 2, 2), target) == pytest.approx(1 - 2 * 2 / (4 + 2), abs=1e-5)


def test_dice_takes_logits_and_boolean_masks():
    pred, target = torch.randn(3, 4, 4), torch.rand(3, 4, 4) > 0.5
    torch.testing.assert_close(
        DiceLoss()(pred, target), DiceLoss(activate=False)(pred.sigmoid(), target.float())
    )


@pytest.mark.parametrize("naive", [False, True])
def test_dice_of_empty_masks(naive):
    pred = torch.full((2, 3, 3), -1e4).requires_grad_()
    value = DiceLoss(naive_dice=naive)(pred, torch.zeros(2, 3, 3))
    value.backward()
    assert value.isfinite()
    assert pred.grad.isfinite().all()


def test_dice_needs_rows():
    with pytest.raises(ConfigError, match=r"pred should hold one mask per row \[n, \.\.\.\], got \[4\]"):
        DiceLoss()(torch.zeros(4), torch.zeros(4))


# --------------------------------------------------------------------------------------------- embeddings


@pytest.fixture
def embeddings():
    torch.manual_seed(9)
    valid = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0]]) > 0
    return torch.randn(4, 4), torch.randn(4, 4), valid


def one_image(first, second):
    count, mean = len(first), (first + second) / 2
    pull = ((first - mean) ** 2 + (second - mean) ** 2).sum() / max(count, 1)
    push = sum(
        F.relu(1 - (mean[j] - mean[k]).abs()) for j in range(count) for k in range(count) if j != k
    ) / max(count * (count - 1), 1)
    return pull, push


def test_embeddings_image_by_image(embeddings):
    first, second, valid = embeddings
    loss = AssociativeEmbeddingLoss(pull_weight=0.3, push_weight=0.7)
    pull, push = loss.terms(first, second, valid=valid, reduction="none")
    for i in range(4):
        own = valid[i]
        expected = one_image(first[i, own], second[i, own])
        torch.testing.assert_close(pull[i], 0.3 * expected[0])
        torch.testing.assert_close(push[i], torch.as_tensor(0.7 * expected[1]))
    total = loss(first, second, valid=valid)
    torch.testing.assert_close(total, (pull + push).sum())
    torch.testing.assert_close(loss(first, second, valid=valid, reduction="mean"), total / 4)
    torch.testing.assert_close(loss(first, second, valid=valid, reduction="mean", avg_factor=2.0), total / 2)
    weight = torch.tensor([0.0, 1.0, 2.0, 0.5])
    weighted = loss(first, second, valid=valid, weight=weight, reduction="none")
    torch.testing.assert_close(weighted, weight * (pull + push))
    with pytest.raises(ValueError, match="avg_factor replaces the divisor of a mean"):
        loss(first, second, avg_factor=2.0)
    with pytest.raises(ConfigError, match=r"valid should have the shape of pred \[4, 4\], got \[4\]"):
        loss(first, second, valid=valid[0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_padding_of_embeddings_does_not_matter(embeddings, bad):
    first, second, valid = embeddings
    loss = AssociativeEmbeddingLoss()
    expected = loss(first, second, valid=valid)
    leaves = [torch.where(valid, values, bad).requires_grad_() for values in (first, second)]
    value = loss(*leaves, valid=valid)
    value.backward()
    torch.testing.assert_close(value.detach(), expected)
    for leaf in leaves:
        assert leaf.grad.isfinite().all()
        assert not leaf.grad[~valid].any()


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_no_embeddings(shape):
    leaf = torch.zeros(shape, requires_grad=True)
    value = AssociativeEmbeddingLoss()(leaf, torch.zeros(shape))
    value.backward()
    assert value == 0
    assert leaf.grad.shape == shape


def test_gradcheck_of_embeddings(embeddings):
    first, second, valid = embeddings
    loss = AssociativeEmbeddingLoss()
    assert torch.autograd.gradcheck(
        lambda a, b: loss(a, b, valid=valid),
        (first.double().requires_grad_(), second.double().requires_grad_()),
    )
