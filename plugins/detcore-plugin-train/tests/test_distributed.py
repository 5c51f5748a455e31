"""Two processes on one machine, with gloo."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import detcore

SCRIPT = Path(__file__).with_name("distributed_run.py")


def run(config, folder, devices):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [sys.executable, SCRIPT, folder / "config.json", folder / "run", str(devices)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with (folder / "run" / "train.csv").open() as file:
        train = list(csv.DictReader(file))
    with (folder / "run" / "val.csv").open() as file:
        return train, list(csv.DictReader(file)), done


@pytest.mark.slow
def test_two_processes_equal_one(config, tmp_path):
    """Same losses and same evaluation as one process with the whole batch, whatever the shards' sizes."""
    # no statistics of a batch, and no short last batch: what one process sees, two see as well
    config["model"]["backbone"] = {"type": "ToyBackbone", "norm": False}
    config["data"]["train"]["length"] = 11
    config["data"] |= {"batch_size": 4, "drop_last": True}
    one_train, one_val, _ = run(config, tmp_path / "one", 1)
    config["data"]["batch_size"] = 2
    two_train, two_val, done = run(config, tmp_path / "two", 2)
    for one, two in zip(one_train, two_train, strict=True):
        assert one["step"] == two["step"]
        for name in ("loss", "loss_cls", "loss_box", "lr"):
            assert float(two[name]) == pytest.approx(float(one[name]), rel=1e-5), name
    # 7 images in two shards: the metric itself checks that each came exactly once
    for one, two in zip(one_val, two_val, strict=True):
        assert float(two["AP"]) == pytest.approx(float(one["AP"]), abs=1e-5)
    assert done.stdout.count("epoch 1/2") == 1
    assert detcore.load(tmp_path / "two" / "run" / "best")


@pytest.mark.slow
def test_batch_statistics_and_short_batches_train_too(config, tmp_path):
    config["data"]["train"]["length"] = 5
    config["data"]["batch_size"] = 2
    config["ema"] = {"type": "EMA", "ramp_steps": 0, "decay": 0.5}
    train, val, _ = run(config, tmp_path / "two", 2)
    assert len(train) == 2 * 2
    assert len(val) == 2


@pytest.mark.slow
@pytest.mark.reliability(
    area="processes",
    fault="an order with repeated images and early stopping, on two processes",
    outcome="the losses are those of one process, and both stop after the same epoch",
)
def test_two_processes_share_an_order_and_stop_together(config, tmp_path):
    config["model"]["backbone"] = {"type": "ToyBackbone", "norm": False}
    config["data"]["train"]["length"] = 11
    config["data"] |= {
        "batch_size": 4,
        "drop_last": True,
        "order": {"type": "ClassBalancedOrder", "oversample_thr": 0.9, "rounding": "random"},
        "grouping": {"type": "AspectRatioGrouping"},
    }
    config |= {"epochs": 5, "patience": 1, "min_delta": 5.0}
    one_train, one_val, _ = run(config, tmp_path / "one", 1)
    config["data"]["batch_size"] = 2
    two_train, two_val, done = run(config, tmp_path / "two", 2)
    assert [row["epoch"] for row in one_val] == [row["epoch"] for row in two_val] == ["1", "2"]
    assert len(one_train) == len(two_train) > 2 * 2
    for one, two in zip(one_train, two_train, strict=True):
        assert float(two["loss"]) == pytest.approx(float(one["loss"]), rel=1e-5)
    assert done.stdout.count("stopped early after epoch 2") == 1
