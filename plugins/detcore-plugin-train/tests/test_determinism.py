"""Arithmetic that gives the same bits each time."""

import io
import random

import numpy as np
import pytest
import torch
from detcore_train import fit
from detcore_train.engine.determinism import deterministic_arithmetic
from detcore_train.engine.module import TrainingModule, seed_step
from rich.console import Console
from torch.utils import deterministic

from detcore.errors import ConfigError
from detcore.serialize import build


def state():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        deterministic.fill_uninitialized_memory,
    )


@pytest.mark.parametrize(
    ("wanted", "device", "inside"),
    [
        (False, "cpu", (True, True)),
        ("warn", "cpu", (True, True)),
        (True, "cpu", (True, False)),
        (False, "cuda", (False, False)),
        ("warn", "cuda", (True, True)),
        (True, "cuda", (True, False)),
    ],
)
def test_the_settings_hold_inside_only(wanted, device, inside):
    before = state()
    with deterministic_arithmetic(wanted, device):
        assert state()[:2] == inside
    assert state() == before
    with pytest.raises(KeyError), deterministic_arithmetic(wanted, device):
        raise KeyError
    assert state() == before


@pytest.mark.parametrize(
    ("given", "inside"), [(False, (True, True)), (True, (True, False)), ("warn", (True, True))]
)
def test_training_sets_them(config, tmp_path, monkeypatch, given, inside):
    seen = []
    original = TrainingModule.training_step

    def training_step(self, *args):
        seen.append(state()[:2])
        return original(self, *args)

    monkeypatch.setattr(TrainingModule, "training_step", training_step)
    config |= {"deterministic": given, "epochs": 1}
    before = state()
    experiment = build(config, kind="experiments")
    fit(experiment, tmp_path / "run", accelerator="cpu", console=Console(file=io.StringIO()))
    assert set(seen) == {inside}
    assert state() == before


def test_other_values_are_refused(config):
    config["deterministic"] = "yes"
    with pytest.raises(ConfigError, match="deterministic"):
        build(config, kind="experiments")


@pytest.mark.reliability(
    area="determinism",
    fault="a gradient that many threads of a CPU add to the same place",
    outcome="the same bits each time",
)
def test_threads_of_a_cpu_add_in_order(record_property):
    """torch's own choice for this operation adds in whatever order the threads come."""
    torch.set_num_threads(4)
    values = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    index = torch.arange(200_000) % 7
    found = set()
    with deterministic_arithmetic(False, "cpu"):
        for _ in range(10):
            place = torch.zeros(7, requires_grad=True)
            (place[index] * values).sum().backward()
            found.add(tuple(place.grad.tolist()))
    record_property("tried", 10)
    assert len(found) == 1


def test_parts_may_draw_from_any_global_generator(config, tmp_path, monkeypatch):
    def drawn(batch):
        seed_step(3, batch, 0)
        return random.random(), np.random.rand(), float(torch.rand(()))

    assert drawn(1) == drawn(1)
    assert not set(drawn(1)) & set(drawn(2))
    seen = []
    original = TrainingModule.training_step

    def training_step(self, *args):
        seen.append((random.random(), np.random.rand()))
        return original(self, *args)

    monkeypatch.setattr(TrainingModule, "training_step", training_step)
    config |= {"epochs": 1}
    for name in ("a", "b"):
        random.seed(len(seen))
        np.random.seed(len(seen))
        experiment = build(config, kind="experiments")
        fit(experiment, tmp_path / name, accelerator="cpu", console=Console(file=io.StringIO()))
    assert seen[:3] == seen[3:]
    assert len(set(seen)) == 3
