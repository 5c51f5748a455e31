import csv
import io
import json
import socket

import pytest
import torch
from detcore_train import evaluate, fit
from detcore_train.engine.module import NonFiniteLossError
from detcore_train.runfolder import Checkpoint
from rich.console import Console

import detcore
from detcore.config import load
from detcore.errors import ConfigError
from detcore.serialize import build, dump


def console():
    return Console(file=io.StringIO(), width=200)


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_training_lowers_the_loss_and_leaves_a_complete_run(config, tmp_path):
    config["epochs"] = 12
    experiment = build(config, kind="experiments")
    out = console()
    result = fit(experiment, tmp_path / "run", console=out, accelerator="cpu")
    train = rows(tmp_path / "run" / "train.csv")
    assert len(train) == 12 * 3
    assert float(train[-1]["loss"]) < 0.5 * float(train[0]["loss"])
    assert {"epoch", "step", "lr", "loss", "loss_cls", "loss_box", "positives"} <= set(train[0])
    assert float(train[0]["loss"]) == pytest.approx(
        float(train[0]["loss_cls"]) + float(train[0]["loss_box"]), rel=1e-4
    )
    val = rows(tmp_path / "run" / "val.csv")
    assert [row["epoch"] for row in val] == [str(e) for e in range(1, 13)]
    assert float(val[-1]["AP"]) == pytest.approx(result.values["AP"], rel=1e-4)
    assert result.values["AP"] > 0.25
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    loaded = detcore.load(tmp_path / "run" / "last")
    assert loaded.class_map.names == ("red", "green")


def test_two_seeded_runs_are_bit_identical(config, tmp_path):
    config["model"]["backbone"] = {"type": "ToyBackbone", "dropout": 0.3}
    states = []
    for name in ("a", "b"):
        torch.manual_seed(hash(name) % 1000)  # what happened before must not matter
        experiment = build(config, kind="experiments")
        fit(experiment, tmp_path / name, console=console(), accelerator="cpu")
        states.append(experiment.model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    config["seed"] = 1
    other = build(config, kind="experiments")
    fit(other, tmp_path / "c", console=console(), accelerator="cpu")
    assert not torch.equal(states[0]["head.out.weight"], other.model.state_dict()["head.out.weight"])


def test_a_non_finite_loss_names_the_term_and_the_images(config, tmp_path):
    config["model"]["head"] = {"type": "ToyHead", "poison_step": 4}
    experiment = build(config, kind="experiments")
    with pytest.raises(NonFiniteLossError) as raised:
        fit(experiment, tmp_path / "run", console=console(), accelerator="cpu")
    message = str(raised.value)
    assert "epoch 2, step 5: the loss term 'loss_box' is nan in the batch of images" in message
    assert message.count("memory/") == 4
    assert "lower optimizer.lr" in message
    assert f"`detcore replay {tmp_path}/run/bad-batch-00000005`" in message
    assert all(torch.isfinite(value).all() for value in experiment.model.state_dict().values())
    assert torch.isfinite(detcore.load(tmp_path / "run" / "last").head.out.weight).all()


def test_learning_rates_are_the_schedules(config, tmp_path):
    config["optimizer"] |= {"lr": 0.01}
    config["epochs"] = 4
    fit(build(config, kind="experiments"), tmp_path / "run", console=console(), accelerator="cpu")
    rates = [float(row["lr"]) for row in rows(tmp_path / "run" / "train.csv")]
    assert rates == pytest.approx([1e-5] + [0.01] * 8 + [0.001] * 3)


def test_the_linear_rule_is_said(config, tmp_path):
    config |= {"base_batch_size": 16, "epochs": 1, "accumulate": 2}
    out = console()
    fit(build(config, kind="experiments"), tmp_path / "run", console=out, accelerator="cpu")
    assert "learning rate scaled by 0.5: 8 images per step, base_batch_size 16" in out.file.getvalue()
    last = rows(tmp_path / "run" / "train.csv")[-1]
    assert float(last["lr"]) == pytest.approx(0.005)
    assert last["step"] == "2"


@pytest.mark.parametrize("precision", ["bf16-mixed", "32"])
def test_precisions(config, tmp_path, precision):
    config |= {"precision": precision, "epochs": 1}
    experiment = build(config, kind="experiments")
    result = fit(experiment, tmp_path / "run", console=console(), accelerator="cpu")
    assert result.values["AP"] is not None
    assert experiment.model.head.out.weight.dtype == torch.float32


@pytest.mark.parametrize("clip", ["clip_grad_norm", "clip_grad_value"])
def test_clipping_bounds_the_step(config, tmp_path, clip):
    config |= {clip: 1e-4, "epochs": 1, "schedule": {"type": "StepSchedule", "warmup_steps": 0}}
    config["optimizer"] = {"type": "SGD", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}
    experiment = build(config, kind="experiments")
    before = experiment.model.head.out.weight.detach().clone()
    fit(experiment, tmp_path / "run", console=console(), accelerator="cpu")
    change = (experiment.model.head.out.weight.detach() - before).abs().max()
    assert 0 < float(change) <= 3 * 1e-4 * (1 + 1e-3)


def test_both_clippings_exclude_each_other(config):
    config |= {"clip_grad_norm": 1.0, "clip_grad_value": 1.0}
    with pytest.raises(ConfigError, match="clip_grad_norm and clip_grad_value exclude each other"):
        build(config, kind="experiments")


def test_the_average_is_what_is_evaluated_and_saved(config, tmp_path):
    config |= {"ema": {"type": "EMA", "decay": 0.9, "ramp_steps": 0}}
    experiment = build(config, kind="experiments")
    result = fit(experiment, tmp_path / "run", console=console(), accelerator="cpu")
    loaded = detcore.load(tmp_path / "run" / "last")
    average = experiment.ema.weights()
    assert all(
        torch.equal(value, average[name]) for name, value in loaded.state_dict().items() if name in average
    )
    assert not torch.equal(loaded.head.out.weight, experiment.model.head.out.weight)
    again = evaluate(loaded, experiment.data.val, experiment.metric, batch_size=4, precision="32")
    assert again.values["AP"] == pytest.approx(result.values["AP"], abs=1e-5)


def test_best_and_last_and_the_number_of_checkpoints(config, tmp_path):
    config |= {"epochs": 4, "keep_last": 2}
    result = fit(build(config, kind="experiments"), tmp_path / "run", console=console(), accelerator="cpu")
    folders = sorted(p.name for p in (tmp_path / "run").iterdir() if p.is_dir())
    assert folders == ["best", "last", "step-00000009", "tensorboard"]
    assert not list((tmp_path / "run").glob(".*"))
    values = [float(row["AP"]) for row in rows(tmp_path / "run" / "val.csv")]
    best, epoch = result.best
    assert best == pytest.approx(max(values), rel=1e-5)
    assert epoch == values.index(max(values)) + 1
    assert not (tmp_path / "run" / "best" / "training.ckpt").exists()
    meta = Checkpoint.read(tmp_path / "run" / "best")
    assert meta.epoch == epoch
    assert meta.values["AP"] == pytest.approx(best)


def test_evaluation_every_other_epoch_and_at_the_end(config, tmp_path):
    config |= {"epochs": 3, "val_every": 2}
    fit(build(config, kind="experiments"), tmp_path / "run", console=console(), accelerator="cpu")
    assert [row["epoch"] for row in rows(tmp_path / "run" / "val.csv")] == ["2", "3"]


def test_without_a_validation_set(config, tmp_path):
    del config["data"]["val"]
    result = fit(build(config, kind="experiments"), tmp_path / "run", console=console(), accelerator="cpu")
    assert result.values == {}
    assert detcore.load(tmp_path / "run" / "best")  # the newest is the best there is


def test_the_saved_experiment_builds_the_same(config, tmp_path):
    experiment = build(config, kind="experiments")
    fit(experiment, tmp_path / "run", console=console(), accelerator="cpu")
    again = build(load(tmp_path / "run" / "experiment.yaml").data, kind="experiments")
    assert dump(again) == dump(experiment)


def test_parts_hear_of_the_progress(config, tmp_path):
    experiment = build(config, kind="experiments")
    fit(experiment, tmp_path / "run", console=console(), accelerator="cpu")
    assert experiment.model.head.step == 5


def test_a_frozen_part_stays_as_it_is(config, tmp_path):
    experiment = build(config, kind="experiments")
    experiment.model.backbone.stem.requires_grad_(False)
    before = experiment.model.backbone.stem.weight.detach().clone()
    fit(experiment, tmp_path / "run", console=console(), accelerator="cpu")
    assert torch.equal(experiment.model.backbone.stem.weight, before)


def test_the_bar_on_a_terminal(config, tmp_path):
    out = Console(file=io.StringIO(), width=160, force_terminal=True, color_system=None)
    fit(build(config, kind="experiments"), tmp_path / "run", console=out, accelerator="cpu")
    text = out.file.getvalue()
    assert "epoch 2/2" in text
    assert "━" in text
    assert "eta 0:00:00" in text


def test_training_uses_no_network(config, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    fit(build(config, kind="experiments"), tmp_path / "run", console=console(), accelerator="cpu")


def test_the_groups_of_parameters_are_in_the_run(config, tmp_path):
    config["optimizer"] |= {
        "backbone_lr_mult": 0.1,
        "layer_decay": 0.8,
        "rules": [{"match": "*.bias", "decay_mult": 0}],
    }
    out = console()
    experiment = build(config, kind="experiments")
    fit(experiment, tmp_path / "run", console=out, accelerator="cpu")
    table = json.loads((tmp_path / "run" / "parameters.json").read_text())
    names = [name for row in table for name in row["parameters"]]
    assert sorted(names) == sorted(name for name, _ in experiment.model.named_parameters())
    (row,) = (row for row in table if "backbone.stem.bias" in row["parameters"])
    assert row["lr"] == pytest.approx(0.01 * 0.1 * 0.8**3)
    assert row["weight_decay"] == 0
    assert f"million parameters in {len(table)} groups; see parameters.json" in out.file.getvalue()
