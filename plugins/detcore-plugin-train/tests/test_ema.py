import math

import pytest
import torch
from detcore_train import EMA
from detcore_train.engine.averaging import swap_in
from torch import nn


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))


def change(net, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in net.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.randn(value.shape, generator=generator).abs())


def test_the_average_is_the_formulas():
    net, ema = model(), EMA(decay=0.9, ramp_steps=10)
    ema.start(net)
    expected = {n: v.clone() for n, v in net.state_dict().items() if v.is_floating_point()}
    for step in range(1, 6):
        change(net, step)
        ema.update(net)
        decay = 0.9 * (1 - math.exp(-step / 10))
        for name in expected:
            expected[name] = decay * expected[name] + (1 - decay) * net.state_dict()[name]
    assert ema.weights().keys() == expected.keys()
    for name, value in ema.weights().items():
        torch.testing.assert_close(value, expected[name])


def test_without_ramp_the_decay_is_full_at_once():
    assert EMA(decay=0.99, ramp_steps=0).decay_at(1) == 0.99
    assert EMA(decay=0.99, ramp_steps=100).decay_at(1) < 0.01
    assert EMA(decay=0.99, ramp_steps=100).decay_at(10_000) == pytest.approx(0.99)


def test_buffers_are_averaged_or_left_to_the_model():
    net = model()
    averaged, copied = EMA(), EMA(buffers="copy")
    averaged.start(net)
    copied.start(net)
    assert {"1.running_mean", "1.running_var"} == averaged.weights().keys() - copied.weights().keys()


def test_the_average_is_not_the_model():
    net, ema = model(), EMA()
    ema.start(net)
    before = ema.weights()["0.weight"].clone()
    change(net, 1)
    assert torch.equal(ema.weights()["0.weight"], before)


def test_state_round_trip():
    net, ema = model(), EMA(decay=0.9, ramp_steps=2)
    ema.start(net)
    for step in range(3):
        change(net, step)
        ema.update(net)
    again = EMA(decay=0.9, ramp_steps=2)
    again.start(model())
    again.load_state_dict(ema.state_dict())
    change(net, 7)
    ema.update(net)
    again.update(net)
    for name, value in ema.weights().items():
        assert torch.equal(value, again.weights()[name])


def test_swapping_back_restores_the_weights():
    net, ema = model(), EMA(ramp_steps=0, decay=0.5)
    ema.start(net)
    change(net, 1)
    ema.update(net)
    own = {n: v.clone() for n, v in net.state_dict().items()}
    before = swap_in(net, ema.weights())
    assert torch.equal(net.state_dict()["0.weight"], ema.weights()["0.weight"])
    assert not torch.equal(net.state_dict()["0.weight"], own["0.weight"])
    swap_in(net, before)
    for name, value in net.state_dict().items():
        assert torch.equal(value, own[name])
