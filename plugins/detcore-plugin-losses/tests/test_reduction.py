"""The shared reduction."""

import pytest
import torch
from detcore_losses import reduce_loss

from detcore.errors import ConfigError, DetcoreError

LOSS = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (None, LOSS),
        (torch.tensor([0.0, 1.0, 2.0]), torch.tensor([[0.0, 0.0], [3.0, 4.0], [10.0, 12.0]])),
        (torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.0, 0.0], [3.0, 4.0], [10.0, 12.0]])),
        (
            torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]]),
            torch.tensor([[0.0, 2.0], [3.0, 0.0], [10.0, 12.0]]),
        ),
        (torch.zeros(3), torch.zeros(3, 2)),
    ],
)
def test_table(weight, expected):
    torch.testing.assert_close(reduce_loss(LOSS, weight=weight, reduction="none"), expected)
    torch.testing.assert_close(reduce_loss(LOSS, weight=weight, reduction="none", avg_factor=5.0), expected)
    torch.testing.assert_close(reduce_loss(LOSS, weight=weight, reduction="sum"), expected.sum())
    torch.testing.assert_close(reduce_loss(LOSS, weight=weight), expected.sum() / 6)
    for factor in (4.0, torch.tensor(4.0), torch.tensor(4)):
        torch.testing.assert_close(reduce_loss(LOSS, weight=weight, avg_factor=factor), expected.sum() / 4)


def test_a_square_loss_is_weighted_by_rows():
    torch.testing.assert_close(
        reduce_loss(torch.ones(2, 2), weight=torch.tensor([1.0, 0.0]), reduction="none"),
        torch.tensor([[1.0, 1.0], [0.0, 0.0]]),
    )


def test_avg_factor_zero():
    assert reduce_loss(torch.zeros(3), avg_factor=0.0) == 0
    assert reduce_loss(torch.ones(3), avg_factor=0.0) == pytest.approx(3 / torch.finfo(torch.float32).eps)


def test_empty():
    for reduction in ("mean", "sum"):
        assert reduce_loss(torch.zeros(0, 4), reduction=reduction) == 0
    assert reduce_loss(torch.zeros(0, 4), reduction="none").shape == (0, 4)


def test_refusals():
    with pytest.raises(ConfigError, match="leave it out, or use reduction='mean'") as caught:
        reduce_loss(LOSS, reduction="sum", avg_factor=1.0)
    assert isinstance(caught.value, (DetcoreError, ValueError))
    with pytest.raises(ConfigError, match="reduction should be 'none', 'mean' or 'sum', got 'max'"):
        reduce_loss(LOSS, reduction="max")
    for shape in ((2,), (3, 3), (1,), (3, 2, 1), (1, 2)):
        with pytest.raises(
            ConfigError, match=r"weight should have one entry per row or per value of the loss \[3, 2\]"
        ):
            reduce_loss(LOSS, weight=torch.ones(shape))
