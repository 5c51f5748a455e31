"""What is kept for a tensor is never that of another one."""

import gc

import pytest
import torch
from detcore_assigners.kept import Kept
from detcore_assigners.tiles import tiles_of

from detcore.structures import PriorLevel


@pytest.fixture
def kept():
    return Kept(size=2)


def test_the_same_tensor_is_looked_at_once(kept):
    tensor = torch.ones(3)
    value = kept.get(tensor, "sum", lambda: tensor.sum())
    assert kept.get(tensor, "sum", lambda: pytest.fail("made again")) is value
    assert kept.get(tensor, "mean", lambda: "another") == "another"


def test_a_tensor_that_was_written_into_is_looked_at_anew(kept):
    tensor = torch.ones(3)
    assert kept.get(tensor, "sum", lambda: float(tensor.sum())) == 3.0
    tensor[0] = 5.0
    assert kept.get(tensor, "sum", lambda: float(tensor.sum())) == 7.0


def test_an_equal_tensor_is_another_one(kept):
    kept.get(torch.ones(3), "sum", lambda: "first")
    assert kept.get(torch.ones(3), "sum", lambda: "second") == "second"


def test_a_tensor_at_the_place_of_one_that_is_gone(kept):
    for number in range(50):  # the next one usually gets the same address
        assert kept.get(torch.full((3,), float(number)), "sum", lambda number=number: number) == number


def test_nothing_is_kept_for_a_tensor_that_is_gone(kept):
    tensor = torch.ones(3)
    kept.get(tensor, "sum", lambda: 1)
    assert len(kept) == 1
    del tensor
    gc.collect()
    assert len(kept) == 0


def test_only_the_last_ones_are_kept(kept):
    tensors = [torch.ones(3) for _ in range(3)]
    for number, tensor in enumerate(tensors):
        kept.get(tensor, "sum", lambda number=number: number)
    assert len(kept) == 2
    assert kept.get(tensors[2], "sum", lambda: "anew") == 2
    assert kept.get(tensors[0], "sum", lambda: "anew") == "anew"


def test_inference_tensors_are_not_kept(kept):
    with torch.inference_mode():
        tensor = torch.ones(3)
    assert kept.get(tensor, "sum", lambda: 1) == 1
    assert kept.get(tensor, "sum", lambda: 2) == 2


def test_an_error_keeps_nothing(kept):
    tensor = torch.ones(3)
    with pytest.raises(ZeroDivisionError):
        kept.get(tensor, "sum", lambda: 1 / 0)
    assert kept.get(tensor, "sum", lambda: 1) == 1


def test_tiles_made_in_inference_mode_serve_in_training():
    priors, levels = torch.rand(4, 4), (PriorLevel(2, 2, 1, (8.0, 8.0)),)
    with torch.inference_mode():
        tiles = tiles_of(priors, levels)
    assert not tiles.columns.is_inference()
    assert tiles_of(priors, levels) is tiles
    assert tiles_of(priors, (PriorLevel(1, 4, 1, (8.0, 8.0)),)) is not tiles
