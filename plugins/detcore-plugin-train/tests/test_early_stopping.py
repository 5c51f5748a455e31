import csv
import io

import pytest
from detcore_train import fit
from rich.console import Console

from detcore.errors import ConfigError
from detcore.interfaces import Metric
from detcore.serialize import build


class Scripted(Metric):
    """Gives the numbers of a list, one evaluation after another."""

    def __init__(self, *, values: tuple[float | None, ...], done: int = 0) -> None:
        self.values, self.done = values, done

    def start(self, dataset):
        pass

    def update(self, image_ids, detections):
        pass

    def compute(self):
        self.done += 1
        return {"AP": self.values[self.done - 1], "AP50": 1.0}


def run(config, folder, values, *, done=0, **options):
    """Trains; returns what was said, and the evaluated epochs."""
    experiment = build(config | {"epochs": 8} | options.pop("experiment", {}), kind="experiments")
    experiment.metric = Scripted(values=tuple(values), done=done)
    console = Console(file=io.StringIO(), width=200)
    result = fit(experiment, folder, console=console, accelerator="cpu", **options)
    with (folder / "val.csv").open() as file:
        return console.file.getvalue(), [int(row["epoch"]) for row in csv.DictReader(file)], result


def test_a_run_that_stops_to_improve_ends(config, tmp_path):
    config["patience"] = 2
    text, epochs, result = run(config, tmp_path / "run", [0.1, 0.5, 0.4, 0.5, 0.9])
    assert epochs == [1, 2, 3, 4]
    assert (
        "stopped early after epoch 4: the best AP is still 0.500 of epoch 2, 2 epochs ago (patience 2)"
        in text
    )
    assert result.best == (0.5, 2)
    assert (tmp_path / "run" / "last").is_dir()


def test_a_run_that_improves_goes_on(config, tmp_path):
    config["patience"] = 1
    text, epochs, _ = run(config, tmp_path / "run", [0.1 * i for i in range(8)])
    assert epochs == list(range(1, 9))
    assert "stopped early" not in text


def test_better_by_less_than_min_delta_is_no_better(config, tmp_path):
    config |= {"patience": 2, "min_delta": 0.05}
    text, epochs, _ = run(config, tmp_path / "run", [0.1, 0.14, 0.15, 0.9])
    assert epochs == [1, 2, 3]
    assert "still 0.100 of epoch 1" in text


def test_patience_counts_epochs_however_seldom_they_are_evaluated(config, tmp_path):
    config |= {"patience": 3, "val_every": 2}
    _, epochs, _ = run(config, tmp_path / "run", [0.5, 0.4, 0.4, 0.4])
    assert epochs == [2, 4, 6]


def test_without_any_value(config, tmp_path):
    config["patience"] = 2
    text, epochs, _ = run(config, tmp_path / "run", [None, None, None])
    assert epochs == [1, 2]
    assert "the best AP is still no value at all, 2 epochs ago" in text


def test_patience_survives_resuming(config, tmp_path):
    """Three epochs, then five more: the best was before the break."""
    config["patience"] = 3
    values = [0.1, 0.5, 0.4, 0.3, 0.3, 0.9, 0.9, 0.9]
    run(config, tmp_path / "run", values, experiment={"epochs": 3})
    text, epochs, _ = run(config, tmp_path / "run", values, done=3, resume=True)
    assert epochs == [1, 2, 3, 4, 5]
    assert "the best AP is still 0.500 of epoch 2, 3 epochs ago" in text


def test_a_run_that_ended_early_stays_so_until_it_may_wait_longer(config, tmp_path):
    config["patience"] = 2
    values = [0.5, 0.1, 0.1, 0.1, 0.6, 0.1, 0.1, 0.1]
    run(config, tmp_path / "run", values)
    text, epochs, _ = run(config, tmp_path / "run", values, done=3, resume=True)
    assert epochs == [1, 2, 3]
    assert "stopped early after epoch 3" in text
    _, epochs, _ = run(config, tmp_path / "run", values, done=3, resume=True, experiment={"patience": 4})
    assert epochs == list(range(1, 9))


@pytest.mark.reliability(
    area="evaluation",
    fault="the number that early stopping goes by does not exist",
    outcome="an error that names the nearest one, at the first evaluation",
)
def test_an_unknown_number(config, tmp_path):
    with pytest.raises(
        ConfigError, match=r"monitor: the evaluation has no number 'AP5'; did you mean 'AP50'\?"
    ):
        run(config, tmp_path / "run", [0.1], experiment={"patience": 1, "monitor": "AP5"})


def test_patience_needs_a_validation_set_and_min_delta_needs_patience(config):
    del config["data"]["val"]
    with pytest.raises(ConfigError, match=r"patience=2 needs a validation set to judge by; give data\.val"):
        build(config | {"patience": 2}, kind="experiments")
    with pytest.raises(ConfigError, match=r"min_delta=0\.1 is about patience, which is not given"):
        build(config | {"min_delta": 0.1}, kind="experiments")
