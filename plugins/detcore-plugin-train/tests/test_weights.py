"""Weights that an experiment begins with."""

import io
import json

import pytest
import torch
from detcore_train import fit
from rich.console import Console
from typer.testing import CliRunner

import detcore
from detcore.cli.app import app
from detcore.config import to_yaml
from detcore.detectors import SingleStageDetector
from detcore.errors import CheckpointError, ConfigError
from detcore.serialize import build


def console():
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def donor(config, tmp_path):
    """A detector of five classes on disk, and its weights."""
    torch.manual_seed(7)
    model = {name: part for name, part in config["model"].items() if name != "type"}
    detector = SingleStageDetector(num_classes=5, **model)
    detcore.save(detector, tmp_path / "donor")
    return tmp_path / "donor", detector.state_dict()


@pytest.fixture
def frozen(config):
    """The experiment without any change to the weights: no steps of any size."""
    config["optimizer"] = {"type": "SGD", "lr": 1e-12, "momentum": 0.0, "weight_decay": 0.0}
    config["epochs"] = 1
    return config


@pytest.mark.reliability(
    area="labels",
    fault="weights of a detector with other classes",
    outcome="an error that names the parts to begin anew",
)
def test_another_number_of_classes_is_an_error_that_names_the_remedy(frozen, donor, tmp_path):
    frozen["weights"] = str(donor[0])
    experiment = build(frozen, kind="experiments")
    with pytest.raises(CheckpointError) as caught:
        fit(experiment, tmp_path / "run", accelerator="cpu", console=console())
    message = str(caught.value)
    assert "2 of another shape: head.out.weight ([9, 16, 1, 1] in the file, [6, 16, 1, 1] in the" in message
    assert "let these parts begin anew: reinit=['head.out']" in message
    assert "--reinit head.out for detcore train" in message
    assert not (tmp_path / "run").exists()


def test_reinit_loads_the_rest_and_reports(frozen, donor, tmp_path):
    frozen |= {"weights": str(donor[0]), "reinit": ["head"]}
    experiment = build(frozen, kind="experiments")
    fresh = experiment.model.head.out.weight.clone()
    out = console()
    fit(experiment, tmp_path / "run", accelerator="cpu", console=out)
    text = out.file.getvalue()
    assert "9 loaded, 2 skipped, 0 kept, 2 re-initialised" in text
    assert "re-initialised: head.out.weight, head.out.bias" in text
    report = json.loads((tmp_path / "run" / "weights.json").read_text())
    assert report["reinitialised"] == ["head.out.weight", "head.out.bias"]
    assert "backbone.stem.weight" in report["loaded"]
    assert torch.allclose(experiment.model.backbone.stem.weight, donor[1]["backbone.stem.weight"], atol=1e-6)
    assert torch.allclose(experiment.model.head.out.weight, fresh, atol=1e-6)


def test_a_run_is_an_address_and_resuming_reads_no_weights(config, donor, tmp_path):
    config["epochs"] = 1
    fit(build(config, kind="experiments"), tmp_path / "first", accelerator="cpu", console=console())
    config["weights"] = str(tmp_path / "first")
    experiment = build(config, kind="experiments")
    report = experiment.load_weights()
    assert report.address == str(tmp_path / "first" / "best")
    best = detcore.load(tmp_path / "first" / "best").state_dict()
    assert all(torch.equal(best[name], tensor) for name, tensor in experiment.model.state_dict().items())
    fit(experiment, tmp_path / "second", accelerator="cpu", console=console())
    config |= {"weights": str(tmp_path / "gone"), "epochs": 2}
    again = build(config, kind="experiments")
    fit(again, tmp_path / "second", resume=True, accelerator="cpu", console=console())


def test_reinit_without_weights_is_an_error(config):
    config["reinit"] = ["head"]
    with pytest.raises(ConfigError, match=r"reinit=\['head'\] is about loaded weights, but weights is not"):
        build(config, kind="experiments")


def test_the_options_of_the_command_line(frozen, donor, tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(to_yaml(frozen))
    arguments = ["train", str(file), "--accelerator", "cpu", "--weights", str(donor[0])]
    wrong = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "a"), "--reinit", "heda"])
    assert isinstance(wrong.exception, CheckpointError)
    assert "no part 'heda' with weights; did you mean 'head'?; it has: backbone, head" in str(wrong.exception)
    right = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "b"), "--reinit", "head"])
    assert right.exit_code == 0, right.output
    assert "2 re-initialised" in right.output
    written = (tmp_path / "b" / "experiment.yaml").read_text()
    assert "reinit:" in written
