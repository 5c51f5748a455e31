import pytest
import torch
from detcore_train.commands.demo import grid
from detcore_train.runlock import RunInUseError, RunLock
from PIL import Image
from typer.testing import CliRunner

from detcore.cli.app import app
from detcore.errors import ConfigError


def invoke(*args):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def _installed():
    for name in ("detcore_resnet", "detcore_fpn", "detcore_retina"):
        pytest.importorskip(name)


@pytest.mark.usefixtures("_installed")
def test_the_demo_runs_through(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ("data.train.length=4", "data.val.length=3", "data.batch_size=2", "epochs=1")
    result = invoke("demo", *small, "model.backbone.base_channels=8", "--device", "cpu")
    lines = result.output.splitlines()
    assert lines[-1].startswith("AP ")
    assert "  AP50 " in lines[-1]
    with Image.open(tmp_path / "detcore-demo" / "predictions.png") as picture:
        assert picture.width > 300
    for word in ("predictions.png", "run/best", "detcore predict", "experiment.yaml"):
        assert word in result.output
    invoke("demo", *small, "model.backbone.base_channels=8", "--device", "cpu")
    assert (tmp_path / "detcore-demo-2" / "evaluation.json").is_file()


@pytest.mark.usefixtures("_installed")
def test_a_second_demo_in_the_same_folder_is_refused(tmp_path):
    with RunLock(tmp_path / "demo" / "run"):
        with pytest.raises(RunInUseError, match="another run writes into this folder"):
            invoke("demo", "--out", tmp_path / "demo", "--device", "cpu")
        assert [path.name for path in (tmp_path / "demo").iterdir()] == ["run"]


@pytest.mark.slow
@pytest.mark.usefixtures("_installed")
def test_the_demo_learns(tmp_path):
    """As it stands, but for its epochs: five of the nine are enough for this."""
    result = invoke("demo", "epochs=5", "--out", tmp_path / "demo", "--device", "cpu")
    numbers = dict(pair.split(" ") for pair in result.output.splitlines()[-1].split("  "))
    assert float(numbers["AP50"]) >= 0.5


def test_without_the_plugins_it_says_which_to_install(tmp_path, monkeypatch):
    missing = ("resnet", "fpn", "retina", "priors")
    monkeypatch.setenv("DETCORE_DISABLE_PLUGINS", ",".join(f"detcore-plugin-{name}" for name in missing))
    with pytest.raises(ConfigError) as raised:
        invoke("demo", "--out", tmp_path / "demo", "--device", "cpu")
    message = str(raised.value)
    for name in ("resnet", "fpn", "retina"):
        assert f"pip install detcore-plugin-{name}" in message
    assert not (tmp_path / "demo").exists()


def test_a_grid_of_images_with_objects(toys, toy_detector):
    dataset = toys.resolve("datasets", "ToyDataset")()
    toy_detector.class_map = dataset.class_map
    picture = grid(toy_detector.eval(), dataset, pairs=2)
    assert picture.dtype == torch.uint8
    assert not toy_detector.training
