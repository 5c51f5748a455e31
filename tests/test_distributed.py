import pytest
import torch

from detcore import distributed


def test_alone_a_count_is_itself_and_at_least_one():
    assert distributed.mean_count(torch.tensor(7.0)) == 7
    assert distributed.mean_count(torch.tensor(0.25)) == 1
    assert distributed.mean_count(torch.tensor(0.25), minimum=0.1) == 0.25


@pytest.mark.parametrize("counts", [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (5.0, 2.0, 0.0)])
def test_several_processes_divide_by_what_one_divides_by(counts, monkeypatch):
    """The mean over processes of ``loss / mean_count`` is the loss of all over the count of all."""
    monkeypatch.setattr(distributed, "world_size", lambda: len(counts))
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda value: value.fill_(sum(counts) / len(counts)))
    losses = torch.tensor([3.0, 4.0, 5.0])
    shared = torch.stack([loss / distributed.mean_count(torch.tensor(c)) for loss, c in zip(losses, counts)])  # noqa: B905
    torch.testing.assert_close(shared.mean(), losses.sum() / max(1.0, sum(counts)))
