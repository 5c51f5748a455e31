"""Measures that are logged beside losses."""

import pytest
import torch

from detcore.metrics import accuracy

SCORES = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.4, 0.35, 0.25], [0.1, 0.2, 0.7]])
LABELS = torch.tensor([0, 2, 2, 2])


def test_top_1():
    found = accuracy(SCORES, LABELS)
    assert found.shape == ()
    assert found == 0.5


def test_several_k():
    assert [share.item() for share in accuracy(SCORES, LABELS, (1, 2, 3))] == [0.5, 0.75, 1.0]
    assert accuracy(SCORES, LABELS, (2,))[0] == 0.75


def test_a_score_counts_only_above_the_threshold():
    assert accuracy(SCORES, LABELS, threshold=0.5) == 0.5
    assert accuracy(SCORES, LABELS, threshold=0.7) == 0
    assert accuracy(SCORES, LABELS, 3, threshold=0.26) == 0.75


def test_of_nothing_is_zero():
    assert accuracy(SCORES[:0], LABELS[:0]) == 0


def test_has_no_gradient():
    assert not accuracy(SCORES.clone().requires_grad_(), LABELS).requires_grad


@pytest.mark.parametrize("topk", [0, 4, (1, 5), ()])
def test_refuses_k(topk):
    with pytest.raises(ValueError, match=r"topk should be 1\.\.3, the number of classes; got"):
        accuracy(SCORES, LABELS, topk)


def test_refuses_shapes():
    with pytest.raises(
        ValueError, match=r"scores should be \[N, C\] and labels \[N\], got \[4, 3\] and \[3\]"
    ):
        accuracy(SCORES, LABELS[:3])
