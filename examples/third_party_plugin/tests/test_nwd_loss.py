"""NWDLoss."""

import math
from typing import Any

import torch
from detcore.testing import parametrize_with_checks

from tiny_objects import NWDLoss


@parametrize_with_checks([NWDLoss.spec(), NWDLoss.spec(size=32.0, loss_weight=2.0)])
def test_conformance(component: Any, check: Any) -> None:
    check(component)


def test_value_by_hand() -> None:
    # the centres are 3 and 4 pixels apart: the distance is 5
    pred = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    target = pred + torch.tensor([[3.0, 4.0, 3.0, 4.0]])
    assert math.isclose(NWDLoss(size=12.8)(pred, target).item(), 1 - math.exp(-5 / 12.8), rel_tol=1e-6)


def test_sizes_count_by_half() -> None:
    # 6 pixels wider and 8 higher about the same centre: half sizes differ by 3 and 4
    pred = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    target = torch.tensor([[-3.0, -4.0, 13.0, 14.0]])
    assert math.isclose(NWDLoss(size=10.0)(pred, target).item(), 1 - math.exp(-0.5), rel_tol=1e-6)


def test_it_teaches_boxes_that_do_not_touch() -> None:
    pred = torch.tensor([[0.0, 0.0, 4.0, 4.0]], requires_grad=True)
    NWDLoss()(pred, torch.tensor([[10.0, 0.0, 14.0, 4.0]])).backward()
    assert pred.grad is not None
    assert (pred.grad[0, [0, 2]] < 0).all()  # further to the right is better
    assert pred.grad[0, [1, 3]].abs().max() < 1e-6


def test_equal_boxes_have_a_finite_gradient() -> None:
    pred = torch.tensor([[0.0, 0.0, 4.0, 4.0]], requires_grad=True)
    loss = NWDLoss()(pred, pred.detach())
    loss.backward()
    assert loss.item() == 0
    assert pred.grad is not None
    assert pred.grad.isfinite().all()
