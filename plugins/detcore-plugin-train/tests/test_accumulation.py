"""What several small batches in one step equal."""

import copy
import io

import pytest
import torch
from detcore_train import fit
from detcore_train.engine.module import TrainingModule
from detcore_train.evaluation import as_images
from rich.console import Console

from detcore.serialize import build


def train(config, folder, monkeypatch):
    """Trains one epoch; returns the gradients of each step, and the weights that it was taken at."""
    steps = []

    def note(module, optimizer):
        parameters = dict(module.model.named_parameters())
        weights = copy.deepcopy(module.model.state_dict())
        steps.append(({name: p.grad.clone() for name, p in parameters.items()}, weights))

    experiment = build(config | {"epochs": 1}, kind="experiments")
    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "on_before_optimizer_step", note, raising=False)
        fit(experiment, folder, accelerator="cpu", console=Console(file=io.StringIO()))
    return steps, experiment


@pytest.fixture
def still(config):
    """Nothing that looks at a whole batch, or is drawn for one."""
    config["model"]["backbone"] = {"type": "ToyBackbone", "norm": False}
    config["data"]["train"] |= {"length": 8, "noise": 0.0}
    config["data"]["shuffle"] = False
    config["schedule"] = {"type": "StepSchedule", "warmup_steps": 0}
    return config


def same(one, other):
    """Equal to 1e-6 of the largest number."""
    assert one.keys() == other.keys()
    scale = max(float(value.abs().max()) for value in one.values())
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-6 * scale, msg=name)


def test_small_batches_are_one_large_where_their_normalisers_agree(still, tmp_path, monkeypatch):
    """One object per image and one cell per object: each batch of two has two positives, that of four has four."""
    still["model"]["head"] = {"type": "ToyHead", "one_positive": True}
    still["data"]["train"]["empty_every"] = None
    one, large = train(still | {"data": still["data"] | {"batch_size": 4}}, tmp_path / "large", monkeypatch)
    two, small = train(
        still | {"data": still["data"] | {"batch_size": 2}, "accumulate": 2}, tmp_path / "small", monkeypatch
    )
    assert len(one) == len(two) == 2
    for (gradient, _), (other, _) in zip(one, two, strict=True):
        same(gradient, other)
    same(large.model.state_dict(), small.model.state_dict())


@pytest.mark.parametrize(("length", "sizes"), [(8, (2, 2)), (6, (2, 1)), (10, (2, 2, 1))])
def test_a_step_takes_the_mean_of_its_batches_also_at_the_end_of_an_epoch(
    still, tmp_path, monkeypatch, length, sizes
):
    still["data"]["train"]["length"] = length
    steps, experiment = train(
        still | {"data": still["data"] | {"batch_size": 2}, "accumulate": 2}, tmp_path / "run", monkeypatch
    )
    assert len(steps) == len(sizes)
    batches = iter(experiment.data.train_loader(experiment.seed))
    model = experiment.model.train()
    for (gradient, weights), size in zip(steps, sizes, strict=True):
        model.load_state_dict(weights)
        model.zero_grad()
        for batch in [next(batches) for _ in range(size)]:
            (model(as_images(model, batch), batch.targets).total / size).backward()
        same(gradient, {name: p.grad for name, p in model.named_parameters()})
