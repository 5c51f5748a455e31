import csv
import io

import pytest
from detcore_train import fit
from rich.console import Console

import detcore
from detcore.serialize import build


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
