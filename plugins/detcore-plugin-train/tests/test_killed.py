"""Runs that are killed by SIGKILL, again and again, and continue as if nothing had happened."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

PROGRAM = Path(__file__).with_name("killed_run.py")
TIMES = ("images_per_second", "waiting_for_data")


@pytest.fixture
def hard(config):
    """Everything with a state: momentum, dropout, augmentation, batch statistics, an average, short batches."""
    config["model"]["backbone"] = {"type": "ToyBackbone", "dropout": 0.2}
    config["data"]["train"]["length"] = 22
    config |= {"ema": {"type": "EMA", "decay": 0.9, "ramp_steps": 3}, "epochs": 3, "save_every": 2}
    return config


def kill(config, folder, seed, kills):
    """Trains once unbroken, and then with so many kills; returns what was done."""
    (folder / "config.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, PROGRAM, folder / "config.json", folder / "runs", str(seed), str(kills)],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def rows(path, without=()):
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in without} for row in csv.DictReader(file)]


def scalars(folder):
    """Every value of the TensorBoard logs, by name and in their order."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    names = [name for name in events.Tags()["scalars"] if name.split("/")[-1] not in TIMES]
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in names}


def assert_equal(one, two, path="state"):
    assert type(one) is type(two), path
    if isinstance(one, dict):
        assert one.keys() == two.keys(), path
        for key in one:
            assert_equal(one[key], two[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(two), path
        for index, (a, b) in enumerate(zip(one, two, strict=True)):
            assert_equal(a, b, f"{path}[{index}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two), path
    else:
        assert one == two, path


def assert_same_run(broken, whole):
    """Losses, weights, optimizer, average, evaluation and logs: bit for bit."""
    assert rows(broken / "train.csv", TIMES) == rows(whole / "train.csv", TIMES)
    assert rows(broken / "val.csv") == rows(whole / "val.csv")
    states = [torch.load(run / "last" / "training.ckpt", weights_only=True) for run in (broken, whole)]
    for key in ("state_dict", "optimizer_states", "detcore", "callbacks", "global_step"):
        assert_equal(states[0][key], states[1][key], key)
    for name in ("last", "best"):
        assert_equal(*(load_file(run / name / "model.safetensors") for run in (broken, whole)))
    listed, expected = (sorted(path.name for path in run.iterdir()) for run in (broken, whole))
    assert listed == expected


def tried(config, folder, seed, kills, record_property):
    done = kill(config, folder, seed, kills)
    assert len(done["killed"]) >= kills
    record_property("tried", len(done["killed"]))
    for number in range(done["runs"]):
        assert_same_run(folder / "runs" / f"broken-{number}", folder / "runs" / "unbroken")
    return done


KILLED = pytest.mark.reliability(
    area="resume",
    fault="killed by SIGKILL at a random moment, also while a checkpoint is written; 0 and 2 reading processes",
    outcome="resumed, the losses, weights, optimizer, average and logs equal the unbroken run's, bit for bit",
)


@KILLED
def test_killed_a_few_times(hard, tmp_path, record_property):
    hard["epochs"] = 2
    tried(hard, tmp_path, 3, 3, record_property)
    whole, broken = (scalars(tmp_path / "runs" / run / "tensorboard") for run in ("unbroken", "broken-0"))
    assert broken == whole
    steps = [step for step, _ in whole["train/loss"]]
    assert steps == list(range(1, 13))


@KILLED
@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "kills", "changes"),
    [
        (1, 8, {}),
        (2, 8, {"data": {"workers": 2}}),
        (
            3,
            8,
            {"accumulate": 2, "log_every": 3, "save_every": 1, "optimizer": {"type": "AdamW", "lr": 0.001}},
        ),
    ],
    ids=["0 workers", "2 workers", "accumulating"],
)
def test_killed_again_and_again(hard, tmp_path, record_property, seed, kills, changes):
    hard["data"] |= changes.pop("data", {})
    hard |= changes
    done = tried(hard, tmp_path, seed, kills, record_property)
    assert {kill["how"] for kill in done["killed"]} == {"time", "files"}
