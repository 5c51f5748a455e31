"""The losses on codes and boxes: degenerate boxes, known values, weights per coordinate."""

import pytest
import torch
from detcore_losses import (
    BalancedL1Loss,
    BoundedIoULoss,
    CIoULoss,
    DIoULoss,
    EIoULoss,
    GIoULoss,
    IoULoss,
    L1Loss,
    MSELoss,
    SIoULoss,
    SmoothL1Loss,
)
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from detcore.errors import ConfigError

UNIT = [10.0, 10.0, 30.0, 30.0]
DEGENERATE = {
    "point": [10.0, 10.0, 10.0, 10.0],
    "line": [10.0, 10.0, 10.0, 30.0],
    "inverted": [40.0, 40.0, 20.0, 20.0],
    "origin": [0.0, 0.0, 0.0, 0.0],
    "far": [1e5, 1e5, 1e5 + 10, 1e5 + 10],
    "huge": [-1e6, -1e6, 1e6, 1e6],
    "same": UNIT,
}


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("swap", [False, True])
def test_degenerate_boxes_stay_finite(box_case, name, swap):
    pred, target = torch.tensor([DEGENERATE[name]]), torch.tensor([UNIT])
    pred, target = (target, pred) if swap else (pred, target)
    pred.requires_grad_()
    value = box_case.loss(reduction="none")(pred, target)
    value.sum().backward()
    assert value.isfinite().all()
    assert pred.grad.isfinite().all()
    assert (value >= -1e-6).all() or name in ("inverted", "origin")


@pytest.mark.parametrize("name", ["point", "line", "origin"])
def test_two_equal_degenerate_boxes(box_case, name):
    pred = torch.tensor([DEGENERATE[name]]).requires_grad_()
    value = box_case.loss(reduction="none")(pred, pred.detach().clone())
    value.sum().backward()
    assert value.isfinite().all()
    assert pred.grad.isfinite().all()


def test_identical_boxes_cost_nothing(box_case):
    _, target = box_case.inputs(50)
    pred = target.clone().requires_grad_()
    value = box_case.loss(reduction="none")(pred, target)
    value.sum().backward()
    assert value.abs().max() < 2e-6
    assert pred.grad.abs().max() < (1e-3 if box_case.name == "bounded-iou" else 1e-6)  # its eps shifts it


def test_weight_per_coordinate_counts_by_its_mean(box_case):
    pred, target = box_case.inputs(5)
    if box_case.loss()(pred, target, reduction="none").dim() == 2:
        pytest.skip("it has a loss per coordinate")
    weight = torch.rand(5, 4)
    weight[2] = 0
    loss = box_case.loss()
    torch.testing.assert_close(
        loss(pred, target, weight=weight, avg_factor=2),
        loss(pred, target, weight=weight.mean(1), avg_factor=2),
    )


def test_wrong_last_dimension(box_case):
    with pytest.raises(ConfigError, match=r"pred should hold boxes \[\.\.\., 4\], got shape \[2, 5\]"):
        box_case.loss()(torch.ones(2, 5), torch.ones(2, 5))


def test_iou_modes():
    pred, target = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[0.0, 0.0, 10.0, 5.0]])
    assert IoULoss(mode="linear")(pred, target) == pytest.approx(0.5)
    assert IoULoss(mode="square")(pred, target) == pytest.approx(0.75)
    assert IoULoss()(pred, target) == pytest.approx(0.693147, rel=1e-5)
    assert IoULoss(eps=0.01)(pred, target + 100) == pytest.approx(4.60517, rel=1e-5)


def test_giou_of_boxes_side_by_side():
    pred, target = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[20.0, 0.0, 30.0, 10.0]])
    assert GIoULoss()(pred, target) == pytest.approx(1 + 100 / 300)
    assert DIoULoss()(pred, target) == pytest.approx(1 + 400 / 1000)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(GIoULoss, generalized_box_iou_loss), (DIoULoss, distance_box_iou_loss)],
)
def test_equals_torchvision(box_case, ours, theirs):
    pred, target = box_case.inputs(20)
    torch.testing.assert_close(
        ours(reduction="none")(pred, target), theirs(pred, target), rtol=1e-5, atol=1e-6
    )


def test_ciou_equals_torchvision_where_the_aspect_counts(box_case):
    """Torchvision weights the aspect term at every overlap, the paper's later version only above one half."""
    pred, target = box_case.inputs(60)
    overlap = 1 - IoULoss(mode="linear", reduction="none")(pred, target)
    above = overlap > 0.5
    assert 5 < above.sum() < 60
    actual, expected = CIoULoss(reduction="none")(pred, target), complete_box_iou_loss(pred, target)
    torch.testing.assert_close(actual[above], expected[above], rtol=1e-4, atol=1e-6)
    distance = DIoULoss(reduction="none")(pred, target)
    torch.testing.assert_close(actual[~above], distance[~above], rtol=1e-5, atol=1e-6)


def test_l1_and_smooth_l1():
    pred, target = torch.tensor([[0.0, 0.5, 1.0, -3.0]]), torch.zeros(1, 4)
    assert L1Loss(reduction="none")(pred, target).tolist() == [[0.0, 0.5, 1.0, 3.0]]
    assert SmoothL1Loss(reduction="none")(pred, target).tolist() == [[0.0, 0.125, 0.5, 2.5]]
    assert SmoothL1Loss(beta=2.0, reduction="none")(pred, target).tolist() == [[0.0, 0.0625, 0.25, 2.0]]


def test_codes_of_any_size():
    assert L1Loss()(torch.zeros(3, 7), torch.ones(3, 7)) == 1


def test_values_of_weight_zero_do_not_matter():
    target = torch.zeros(2, 4)
    target[0, 1] = float("nan")
    weight = torch.ones(2, 4)
    weight[0, 1] = 0
    for loss in (L1Loss(), SmoothL1Loss()):
        pred = torch.ones(2, 4, requires_grad=True)
        value = loss(pred, target, weight=weight)
        value.backward()
        assert value.isfinite()
        assert pred.grad[0, 1] == 0
        assert pred.grad.isfinite().all()


def test_mse():
    assert MSELoss(reduction="none")(torch.tensor([[1.0, -3.0]]), torch.zeros(1, 2)).tolist() == [[1.0, 9.0]]


@pytest.mark.parametrize("beta", [0.3, 1.0, 2.5])
def test_balanced_l1_is_smooth_at_beta(beta):
    def value_and_slope(x, **kwargs):
        x = torch.tensor([x], dtype=torch.float64, requires_grad=True)
        value = BalancedL1Loss(beta=beta, **kwargs)(x, torch.zeros(1, dtype=torch.float64))
        return value.item(), torch.autograd.grad(value, x)[0].item()

    below, above = value_and_slope(beta - 1e-9), value_and_slope(beta + 1e-9)
    assert below == pytest.approx(above, rel=1e-6)
    assert above[1] == 1.5
    assert value_and_slope(0.0) == (0, 0)
    below, above = value_and_slope(beta - 1e-9, smooth=False), value_and_slope(beta + 1e-9, smooth=False)
    assert below[0] == pytest.approx(above[0], rel=1e-6)
    assert (below[1] == pytest.approx(above[1], rel=1e-6)) == (beta == 1)


def test_bounded_iou_of_one_shifted_side():
    pred, target = torch.tensor([[0.0, 0.0, 20.0, 10.0]]), torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    values = BoundedIoULoss(beta=0.2, eps=1e-6, reduction="none")(pred, target)[0]
    # centre x off by 5: at best IoU (10 - 10) / (10 + 10) = 0; width 10 of 20: at best 1 / 2
    torch.testing.assert_close(values, torch.tensor([1 - 0.1, 0.0, 0.5 - 0.1, 0.0]), atol=1e-5, rtol=1e-5)


def test_bounded_iou_weighs_coordinates():
    pred, target = torch.tensor([[0.0, 0.0, 20.0, 10.0]]), torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    weight = torch.tensor([[0.0, 1.0, 2.0, 1.0]])
    value = BoundedIoULoss()(pred, target, weight=weight, reduction="sum")
    assert value == pytest.approx(0.8, rel=1e-3)


def test_eiou_pulls_boxes_that_are_apart():
    target = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    near, far = target + 15, target + 30
    loss = EIoULoss()
    assert loss(near, target) < loss(far, target)
    inside = torch.tensor([[0.0, 0.0, 10.0, 5.0]])
    assert loss(inside, target) == pytest.approx(0.5 - 0.05, rel=1e-5)  # 1 - IoU, minus half the smooth point


def test_siou_costs_distance():
    target = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    loss = SIoULoss()
    values = [loss(target + shift, target).item() for shift in (0.0, 5.0, 15.0, 30.0)]
    assert values == sorted(values)
    # the reference's default
    assert SIoULoss(neg_gamma=False)(target + 30, target) < SIoULoss(neg_gamma=False)(target + 11, target)


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (SmoothL1Loss, "beta"),
        (GIoULoss, "eps"),
        (IoULoss, "mode"),
        (EIoULoss, "smooth_point"),
        (BalancedL1Loss, "gamma"),
    ],
)
def test_parameters_are_checked(loss, name):
    with pytest.raises(ConfigError, match=name):
        loss(**{name: 0})
