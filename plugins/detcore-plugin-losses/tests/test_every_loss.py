"""What holds for every loss of the plugin."""

import importlib.metadata
import pickle

import detcore_losses
import pytest
import torch

from detcore import registry
from detcore.errors import ConfigError
from detcore.interfaces import BoxLoss, ClassificationLoss, Loss


def value_and_gradient(loss, pred, target, **kwargs):
    leaf = pred.detach().clone().requires_grad_()
    value = loss(leaf, target, **kwargs)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


def test_gradcheck(case):
    pred, target = case.inputs(6, dtype=torch.float64)
    weight = torch.tensor([1.0, 0.5, 0.0, 2.0, 1.0, 0.3], dtype=torch.float64)
    loss = case.loss()
    for kwargs in ({"reduction": "none"}, {"weight": weight}, {"weight": weight, "avg_factor": 2.5}):
        assert torch.autograd.gradcheck(lambda p, kw=kwargs: loss(p, target, **kw), pred.requires_grad_())


def test_reductions_agree(case):
    pred, target = case.inputs(7)
    loss = case.loss()
    each = loss(pred, target, reduction="none")
    weight = torch.linspace(0, 2, 7)
    rows = weight.reshape(-1, *[1] * (each.dim() - 1))
    torch.testing.assert_close(loss(pred, target), each.mean())
    torch.testing.assert_close(loss(pred, target, reduction="sum"), each.sum())
    torch.testing.assert_close(loss(pred, target, avg_factor=3.0), each.sum() / 3)
    torch.testing.assert_close(loss(pred, target, weight=weight, reduction="none"), each * rows)
    torch.testing.assert_close(loss(pred, target, weight=weight), (each * rows).mean())
    torch.testing.assert_close(
        loss(pred, target, weight=weight, avg_factor=torch.tensor(4)), (each * rows).sum() / 4
    )
    torch.testing.assert_close(case.loss(reduction="sum", loss_weight=0.3)(pred, target), 0.3 * each.sum())


def test_rows_are_independent(case):
    pred, target = case.inputs(4)
    loss = case.loss(reduction="none")
    together = loss(pred, target)
    for i in range(4):
        torch.testing.assert_close(loss(pred[i : i + 1], target[i : i + 1]), together[i : i + 1])


def test_leading_dimensions(case):
    if not case.leading:
        pytest.skip("its rows are its first dimension")
    pred, target = case.inputs(6)
    loss = case.loss()
    split = (pred.reshape(2, 3, -1), target.reshape(2, 3, *target.shape[1:]))
    weight = torch.linspace(0, 1, 6)
    torch.testing.assert_close(loss(*split, weight=weight.reshape(2, 3)), loss(pred, target, weight=weight))
    each = loss(*split, reduction="none")
    torch.testing.assert_close(each.flatten(0, 1), loss(pred, target, reduction="none"))


def test_sum_with_avg_factor_is_an_error(case):
    pred, target = case.inputs(3)
    with pytest.raises(
        ValueError, match=r"Loss: avg_factor replaces the divisor of a mean, .* use reduction='mean'"
    ):
        case.loss(reduction="sum")(pred, target, avg_factor=2.0)


@pytest.mark.parametrize("kwargs", [{}, {"reduction": "sum"}, {"avg_factor": 1.0}, {"avg_factor": 0.0}])
def test_empty_is_zero_and_connected(case, kwargs):
    pred, target = case.inputs(0)
    leaf = pred.requires_grad_()
    for weight in (None, torch.zeros(0)):
        value = case.loss()(leaf, target, weight=weight, **kwargs)
        (gradient,) = torch.autograd.grad(value, leaf)
        assert value == 0
        assert gradient.shape == leaf.shape


def test_empty_unreduced(case):
    pred, target = case.inputs(0)
    assert len(case.loss()(pred.requires_grad_(), target, reduction="none")) == 0


def test_all_zero_weight_keeps_the_shape(case):
    pred, target = case.inputs(3)
    loss = case.loss()
    value, gradient = value_and_gradient(loss, pred, target, weight=torch.zeros(3), reduction="none")
    assert value.shape == loss(pred, target, reduction="none").shape
    assert not value.any()
    assert not gradient.any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_rows_of_weight_zero_do_not_matter(case, bad):
    pred, target = case.inputs(4)
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5])
    expected = value_and_gradient(case.loss(), pred, target, weight=weight)
    spoilt, spoilt_target = pred.clone(), target.clone()
    spoilt[1] = bad
    if target.is_floating_point() and isinstance(case.loss(), BoxLoss):
        spoilt_target[1] = bad
    value, gradient = value_and_gradient(case.loss(), spoilt, spoilt_target, weight=weight)
    torch.testing.assert_close(value, expected[0])
    torch.testing.assert_close(gradient, expected[1])
    assert not gradient[1].any()


def test_zero_avg_factor_is_finite(case):
    pred, target = case.inputs(3)
    value, gradient = value_and_gradient(
        case.loss(), pred, target, weight=torch.zeros(3), avg_factor=torch.tensor(0.0)
    )
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(case, dtype):
    pred, target = case.inputs(8)
    pred = pred.to(dtype)
    target = target.to(dtype) if target.is_floating_point() else target
    value, gradient = value_and_gradient(case.loss(), pred, target, weight=torch.ones(8), avg_factor=3.0)
    wide = target.float() if target.is_floating_point() else target
    expected = value_and_gradient(case.loss(), pred.float(), wide, weight=torch.ones(8), avg_factor=3.0)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    torch.testing.assert_close(value, expected[0])
    torch.testing.assert_close(gradient.float(), expected[1], rtol=1e-2, atol=1e-3)


def test_autocast(case):
    pred, target = case.inputs(8)
    expected = case.loss()(pred, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = case.loss()(pred, target)
    torch.testing.assert_close(actual, expected)


@pytest.mark.slow
def test_compiles_whole(case):
    torch.compiler.reset()
    pred, target = case.inputs(6)
    loss = case.loss()
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0, 1.0])
    kwargs = {"weight": weight, "avg_factor": torch.tensor(3.0)}
    expected = value_and_gradient(loss, pred, target, **kwargs)
    actual = value_and_gradient(
        torch.compile(loss, fullgraph=True, backend="aot_eager"), pred, target, **kwargs
    )
    torch.testing.assert_close(actual, expected)


def test_wrong_weight_shape(case):
    pred, target = case.inputs(6)
    with pytest.raises(
        ConfigError, match=r"weight should have one entry per row or per value of the loss .* got \[3\]"
    ):
        case.loss()(pred, target, weight=torch.ones(3))


def test_wrong_target_shape(case):
    pred, target = case.inputs(6)
    with pytest.raises(ConfigError, match=r"target should (have the shape of pred|hold labels).* got \[3"):
        case.loss()(pred, target[:3])


def test_pickle_and_state(case):
    pred, target = case.inputs(5)
    loss = case.loss(loss_weight=2)
    assert not loss.state_dict()
    torch.testing.assert_close(pickle.loads(pickle.dumps(loss))(pred, target), loss(pred, target))


@pytest.mark.parametrize("value", [-1, "much", None])
def test_loss_weight_is_checked(case, value):
    with pytest.raises(ConfigError, match="loss_weight"):
        case.loss(loss_weight=value)


def test_entry_points():
    points = importlib.metadata.distribution("detcore-plugin-losses").entry_points
    losses = {name for name in detcore_losses.__all__ if name[0].isupper()}
    assert {p.name for p in points if p.group == "detcore.losses"} == losses
    for name in losses:
        component = registry.resolve("losses", name)
        assert component is getattr(detcore_losses, name)
        assert issubclass(component, Loss)
        assert component.spec().build(num_classes=3).loss_weight == 1


def test_what_the_head_asks():
    classes = [getattr(detcore_losses, name) for name in detcore_losses.__all__ if name[0].isupper()]
    boxes = {c.__name__: c.space for c in classes if issubclass(c, BoxLoss)}
    on_boxes = {name for name, space in boxes.items() if space == "boxes"}
    assert on_boxes == {name for name in boxes if name.endswith("IoULoss")}
    assert {*boxes} - on_boxes == {"L1Loss", "SmoothL1Loss", "BalancedL1Loss", "MSELoss", "GHMR"}
    on_classes = {c.__name__: c.uses_quality for c in classes if issubclass(c, ClassificationLoss)}
    assert {name for name, uses in on_classes.items() if uses} == {"QualityFocalLoss", "VarifocalLoss"}
    assert {*on_classes} >= {"FocalLoss", "CrossEntropyLoss", "GHMC", "SeesawLoss"}
    assert {c.__name__ for c in classes if not c.additive} == {"GHMC", "GHMR", "SeesawLoss"}


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'detcore_losses' has no attribute 'HingeLoss'"):
        detcore_losses.HingeLoss
