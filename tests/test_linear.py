"""Fully connected layers as convolutions."""

import copy

import pytest
import torch
from torch import nn

from detcore import linear as module
from detcore.linear import linear, slow_blas


@pytest.fixture
def other_way(monkeypatch):
    """The way through convolutions, on any processor."""
    monkeypatch.setattr(module, "slow_blas", lambda: True)
    monkeypatch.setattr(module, "_WORTH", 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 37])
def test_values_and_gradients_are_the_layers_own(other_way, bias, rows):
    torch.manual_seed(0)
    layer, x = nn.Linear(24, 5, bias=bias), torch.randn(rows, 24, requires_grad=True)
    mine, again = copy.deepcopy(layer), x.detach().clone().requires_grad_()
    expected, found = layer(x), linear(mine, again)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    (expected**2).sum().backward()
    (found**2).sum().backward()
    torch.testing.assert_close(again.grad, x.grad, rtol=1e-5, atol=1e-5)
    for one, other in zip(mine.parameters(), layer.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(linear(layer, x), expected, rtol=1e-5, atol=1e-6)


def test_frozen_weights_and_inputs(other_way):
    layer = nn.Linear(8, 4).requires_grad_(False)
    x = torch.randn(3, 8, requires_grad=True)
    linear(layer, x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(3, 8))
    layer.requires_grad_(True)
    linear(layer, x.detach()).sum().backward()
    assert layer.weight.grad.shape == (4, 8)


def test_only_where_it_is_meant(other_way, monkeypatch):
    calls = []
    monkeypatch.setattr(module, "_product", lambda *a: calls.append(1) or a[0].new_zeros(len(a[0]), 4))
    layer = nn.Linear(8, 4)
    with torch.no_grad():
        linear(layer, torch.zeros(3, 8))
        assert calls == [1]
        linear(layer, torch.zeros(1, 8))  # too small
        linear(layer.double(), torch.zeros(3, 8, dtype=torch.float64))
        linear(layer.float(), torch.zeros(2, 3, 8))
        with torch.autocast("cpu", torch.bfloat16):
            linear(layer, torch.zeros(3, 8))
        monkeypatch.setattr(module, "slow_blas", lambda: False)
        linear(layer, torch.zeros(3, 8))
    assert calls == [1]


def test_processors(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("vendor_id : AuthenticAMD\n")
    assert slow_blas(str(path)) == torch.backends.mkl.is_available()
    other = tmp_path / "other"
    other.write_text("vendor_id : GenuineIntel\n")
    assert not slow_blas(str(other))
    assert not slow_blas(str(tmp_path / "absent"))
