"""The gradient harmonising losses: against the paper's sums, weights, moving averages."""

import pickle

import pytest
import torch
from detcore_losses import GHMC, GHMR, ghm, lean
from torch.nn import functional as F

from detcore.errors import ConfigError

BINS = 4


@pytest.fixture
def labelled():
    torch.manual_seed(4)
    return torch.randn(30, 3) * 2, torch.randint(0, 4, (30,))


@pytest.fixture
def coded():
    torch.manual_seed(5)
    return torch.randn(12, 4) * 0.1, torch.randn(12, 4) * 0.1


def norms_of(pred, labels):
    return (pred.sigmoid() - F.one_hot(labels, 4)[:, :3]).abs()


def harmonised(losses, norms, weight):
    """Sum over w loss / (mass of the bin), over the number of bins that hold something."""
    total, used = 0.0, 0
    for i in range(BINS):
        inside = (norms >= i / BINS) & (norms < (i + 1) / BINS) & (weight > 0)
        if inside.any():
            used += 1
            total += (weight * losses)[inside].sum() / weight[inside].sum()
    return total / used


def gradient(loss, pred, *args, **kwargs):
    leaf = pred.detach().clone().requires_grad_()
    value = loss(leaf, *args, **kwargs)
    return value.detach(), torch.autograd.grad(value.sum(), leaf)[0]


@pytest.mark.parametrize("weighting", ["none", "rows", "values"])
def test_ghmc_is_the_papers(labelled, weighting, monkeypatch):
    monkeypatch.setattr(lean, "CHUNK_CPU", 3 * 7)  # several pieces, the last one smaller
    pred, labels = labelled
    rows = torch.rand(30) * (torch.rand(30) > 0.3)
    weight = {"none": None, "rows": rows, "values": rows[:, None] * (torch.rand(30, 3) + 0.1)}[weighting]
    full = (
        torch.ones(30, 3)
        if weight is None
        else weight
        if weight.dim() == 2
        else weight[:, None].expand(30, 3)
    )
    target = F.one_hot(labels, 4)[:, :3].float()
    entropy = F.binary_cross_entropy_with_logits(pred, target, reduction="none")
    expected = harmonised(entropy, norms_of(pred, labels), full)
    found = gradient(GHMC(bins=BINS), pred, labels, weight=weight)
    torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found, gradient(GHMC(bins=BINS), pred, target, weight=weight))
    monkeypatch.setattr(lean, "may_be_lean", lambda _: False)
    torch.testing.assert_close(found, gradient(GHMC(bins=BINS), pred, labels, weight=weight))


@pytest.mark.parametrize("weighted", [False, True])
def test_ghmr_is_the_papers(coded, weighted):
    pred, target = coded
    weight = torch.rand(12, 4) * (torch.rand(12, 4) > 0.3) if weighted else torch.ones(12, 4)
    length = torch.sqrt((pred - target).square() + 0.05**2)
    expected = harmonised(length - 0.05, (pred - target).abs() / length, weight)
    loss = GHMR(mu=0.05, bins=BINS)
    torch.testing.assert_close(loss(pred, target, weight=weight if weighted else None), expected)


@pytest.mark.parametrize("name", ["labelled", "coded"])
def test_reductions(name, request):
    pred, target = request.getfixturevalue(name)
    make = GHMC if name == "labelled" else GHMR
    each = make()(pred, target, reduction="none")
    assert each.shape == pred.shape
    torch.testing.assert_close(make()(pred, target, reduction="sum"), each.sum())
    torch.testing.assert_close(make()(pred, target), each.mean())
    torch.testing.assert_close(make()(pred, target, avg_factor=3.0), each.mean())  # has its own divisor
    torch.testing.assert_close(make(loss_weight=0.5)(pred, target), each.mean() / 2)
    with pytest.raises(ValueError, match="avg_factor replaces the divisor of a mean"):
        make()(pred, target, reduction="sum", avg_factor=3.0)


@pytest.mark.parametrize("name", ["labelled", "coded"])
def test_a_weight_of_two_is_two_rows(name, request):
    pred, target = request.getfixturevalue(name)
    make = GHMC if name == "labelled" else GHMR
    weight = torch.ones(len(pred))
    weight[2] = 2
    twice = make()(torch.cat((pred, pred[2:3])), torch.cat((target, target[2:3])))
    torch.testing.assert_close(make()(pred, target, weight=weight), twice)


@pytest.mark.parametrize("name", ["labelled", "coded"])
def test_nothing_and_nothing_of_weight(name, request):
    pred, target = request.getfixturevalue(name)
    make = GHMC if name == "labelled" else GHMR
    for momentum in (0.0, 0.5):
        loss = make(momentum=momentum)
        for rows, weight in ((0, None), (5, torch.zeros(5))):
            for reduction in ("mean", "sum"):
                value, grad = gradient(loss, pred[:rows], target[:rows], weight=weight, reduction=reduction)
                assert value == 0
                assert not grad.any()
        assert not any(state.any() for state in loss.state_dict().values())


@pytest.mark.parametrize("name", ["labelled", "coded"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_rows_of_weight_zero_do_not_matter(name, bad, request):
    pred, target = request.getfixturevalue(name)
    make = GHMC if name == "labelled" else GHMR
    weight = torch.ones(len(pred))
    weight[1] = 0
    expected = gradient(make(), pred, target, weight=weight)
    spoilt = pred.clone()
    spoilt[1] = bad
    torch.testing.assert_close(gradient(make(), spoilt, target, weight=weight), expected)


@pytest.mark.parametrize("name", ["labelled", "coded"])
def test_gradcheck(name, request):
    pred, target = (t.double() if t.is_floating_point() else t for t in request.getfixturevalue(name))
    loss = GHMC() if name == "labelled" else GHMR()
    assert torch.autograd.gradcheck(lambda p: loss(p, target), pred.requires_grad_())


def test_moving_averages_with_and_without_correction(coded):
    pred, target = coded
    plain = GHMR()(pred, target)
    corrected, raw = GHMR(momentum=0.75), GHMR(momentum=0.75, bias_correction=False)
    for step in range(1, 4):  # the same batch again and again: its masses are their average
        torch.testing.assert_close(corrected(pred, target), plain)
        torch.testing.assert_close(raw(pred, target), plain / (1 - 0.75**step))


def test_averages_remember(labelled):
    pred, labels = labelled
    loss = GHMC(bins=BINS, momentum=0.5)
    loss(pred, labels)
    after = loss.acc_sum.clone()
    mass = torch.histc(norms_of(pred, labels), BINS, 0, 1)
    torch.testing.assert_close(after, mass / 2)
    few = loss(pred[:4], labels[:4], reduction="none")
    torch.testing.assert_close(loss.updates.max(), torch.tensor(2.0))
    assert not torch.equal(few, GHMC(bins=BINS)(pred[:4], labels[:4], reduction="none"))
    again = GHMC(bins=BINS, momentum=0.5)
    again.load_state_dict(loss.state_dict())
    expected = loss(pred, labels)
    torch.testing.assert_close(again(pred, labels), expected)
    torch.testing.assert_close(pickle.loads(pickle.dumps(again)).acc_sum, loss.acc_sum)


def test_only_training_with_gradients_changes_state(labelled):
    pred, labels = labelled
    loss = GHMC(momentum=0.5)
    with torch.no_grad():
        loss(pred, labels)
    loss.eval()
    loss(pred, labels)
    assert not loss.acc_sum.any()
    assert not loss.updates.any()
    loss.train()(pred, labels)
    assert loss.acc_sum.any()


def test_state_only_with_momentum():
    assert not GHMC().state_dict()
    assert {*GHMC(momentum=0.1).state_dict()} == {"acc_sum", "updates"}
    assert {*GHMR(momentum=0.1, bias_correction=False).state_dict()} == {"acc_sum"}


def test_what_occurs_often_counts_less():
    """Ninety easy negatives and one hard one: the hard one weighs as much as all easy ones together."""
    pred = torch.full((91, 1), -5.0)
    pred[0] = 5.0
    each = GHMC(reduction="none")(pred, torch.ones(91, dtype=torch.int64))
    entropy = F.softplus(pred)
    torch.testing.assert_close(each[0] / entropy[0], (each[1:] / entropy[1:]).sum(0))


def test_millions_of_examples_are_counted_exactly():
    index = torch.zeros(2**24 + 3, dtype=torch.int32)
    assert ghm.mass_of(index, torch.ones(1), 2).tolist() == [2**24 + 3, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(labelled, dtype):
    pred, labels = labelled
    value, grad = gradient(GHMC(), pred.to(dtype), labels, weight=torch.ones(30))
    assert value.dtype == torch.float32
    assert grad.dtype == dtype
    torch.testing.assert_close(value, GHMC()(pred.to(dtype).float(), labels))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["labelled", "coded"])
def test_compiles_whole(name, request):
    torch.compiler.reset()
    pred, target = request.getfixturevalue(name)
    make = GHMC if name == "labelled" else GHMR
    compiled = torch.compile(make(momentum=0.5), fullgraph=True, backend="aot_eager")
    loss = make(momentum=0.5)
    for _ in range(2):
        torch.testing.assert_close(gradient(compiled, pred, target), gradient(loss, pred, target))


def test_refusals(labelled):
    pred, labels = labelled
    with pytest.raises(ConfigError, match="momentum"):
        GHMC(momentum=1.0)
    with pytest.raises(ConfigError, match="mu"):
        GHMR(mu=0)
    with pytest.raises(ConfigError, match="target should hold labels"):
        GHMC()(pred, labels[:3])
    with pytest.raises(ConfigError, match="target should have the shape of pred"):
        GHMR()(pred, pred[:3])
