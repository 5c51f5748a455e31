import json
import subprocess
import sys

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import detcore
from detcore.cli.app import app
from detcore.config import to_yaml
from detcore.errors import CheckpointError, ConfigError, DataError


def invoke(*args):
    result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def shapes_config(config, tmp_path):
    """The toy detector on files: generated shapes, resized, and COCO's metric."""

    def shapes(length, seed):
        return {
            "type": "ShapesDataset",
            "length": length,
            "size": [48, 64],
            "seed": seed,
            "transforms": [{"type": "Resize", "scale": [96, 72]}],
        }

    config["data"] |= {"root": str(tmp_path / "shapes"), "train": shapes(8, 0), "val": shapes(5, 1)}
    del config["metric"]
    config["epochs"] = 1
    return config


@pytest.fixture
def file(shapes_config, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(to_yaml(shapes_config))
    return path


@pytest.fixture
def run(file, tmp_path):
    """A finished run."""
    invoke("train", file, "--out", tmp_path / "run", "--accelerator", "cpu")
    return tmp_path / "run"


def test_train_ends_with_the_numbers_and_says_where_everything_is(file, tmp_path):
    result = invoke("train", file, "epochs=2", "--out", tmp_path / "run", "--accelerator", "cpu")
    lines = result.output.splitlines()
    assert lines[-1].startswith("AP 0.") or lines[-1].startswith("AP n/a")
    assert "  AP50 " in lines[-1]
    assert f"last: {tmp_path / 'run' / 'last'}" in result.output
    assert [line for line in lines if line.startswith("epoch 2/2")]
    assert detcore.load(tmp_path / "run" / "best").class_map.names == ("circle", "square", "triangle")


def test_resume_on_the_command_line(run, file):
    result = invoke("train", file, "epochs=2", "--out", run, "--resume", "--accelerator", "cpu")
    assert "continuing" in result.output
    assert "epoch 1/2" not in result.output


def test_eval_uses_the_experiment_of_the_run(run, tmp_path, monkeypatch):
    monkeypatch.chdir("/")  # the data's folder was made absolute
    result = invoke("eval", run, "--device", "cpu")
    assert "by class" in result.output
    assert "triangle" in result.output
    numbers = json.loads((run / "best" / "evaluation.json").read_text())
    assert numbers["images"] == 5
    expected = "  ".join(
        f"{name} {'n/a' if value is None else format(value, '.3f')}"
        for name, value in numbers["values"].items()
    )
    assert result.output.splitlines()[-1] == expected
    assert set(numbers["per_class"]) == {"circle", "square", "triangle"}


def test_eval_equals_the_evaluation_of_training(run, tmp_path):
    invoke(
        "eval", run / "last", "data.val_batch_size=2", "--out", tmp_path / "numbers.json", "--device", "cpu",
        "--precision", "32",
    )  # fmt: skip
    written = json.loads((tmp_path / "numbers.json").read_text())
    assert written["precision"] == "32"
    numbers = written["values"]
    trained = json.loads((run / "last" / "checkpoint.json").read_text())["values"]
    assert numbers == pytest.approx(trained, abs=1e-6)


def test_eval_of_another_file(run, file, tmp_path):
    result = invoke("eval", run / "best", file, "data.val.length=3", "--device", "cpu")
    assert json.loads((run / "best" / "evaluation.json").read_text())["images"] == 3
    assert result.output.splitlines()[-1].startswith("AP ")


def test_eval_without_an_experiment(run, tmp_path):
    detector = detcore.load(run / "best")
    detcore.save(detector, tmp_path / "alone" / "model.safetensors")
    with pytest.raises(ConfigError, match=r"no experiment\.yaml beside it; give the experiment's FILE"):
        invoke("eval", tmp_path / "alone" / "model.safetensors", "--device", "cpu")


def test_predict_writes_pictures_and_json(run, tmp_path):
    images = tmp_path / "shapes"
    result = invoke(
        "predict", images, "--model", run, "--out", tmp_path / "out", "--score-thr", 0, "--device", "cpu"
    )
    data = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(data["images"]) == 8 + 5
    assert data["classes"]["names"] == ["circle", "square", "triangle"]
    for image in data["images"]:
        assert (image["width"], image["height"]) == (64, 48)
        with Image.open(tmp_path / "out" / image["file"]) as picture:
            assert picture.size == (64, 48)
        for found in image["detections"]:
            assert found["class"] in data["classes"]["names"]
            x1, y1, x2, y2 = found["box"]
            assert 0 <= x1 <= x2 <= 64
            assert 0 <= y1 <= y2 <= 48
    assert sum(len(image["detections"]) for image in data["images"]) > 0
    assert "predictions.json" in result.output


def test_predict_agrees_with_eval(run, tmp_path):
    """One image through both: same resizing, same way back."""
    from detcore_data import collate
    from detcore_train.commands.common import experiment_spec
    from detcore_train.evaluation import detect

    from detcore.config import load

    detector = detcore.load(run / "best")
    data = experiment_spec(load(run / "experiment.yaml").data, "").params["data"].build()
    expected = detect(detector, collate([data.val[0]]))[0]
    path = data.val[0]["file"]
    options = ["--score-thr", 0, "--device", "cpu", "--precision", "32"]
    invoke("predict", path, "--model", run, "--out", tmp_path / "out", *options)
    (image,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["images"]
    boxes = torch.tensor([found["box"] for found in image["detections"]])
    torch.testing.assert_close(boxes, expected.boxes, atol=0.006, rtol=0)


def test_predict_on_nothing(run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image in it; image files end in"):
        invoke("predict", tmp_path / "empty", "--model", run, "--out", tmp_path / "out", "--device", "cpu")
    with pytest.raises(DataError, match="no such file or folder"):
        invoke("predict", tmp_path / "nowhere", "--model", run, "--out", tmp_path / "out", "--device", "cpu")


def test_missing_model(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        invoke("predict", tmp_path, "--model", tmp_path / "nothing", "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epoch=3", r"epoch: unknown parameter 'epoch'; did you mean 'epochs'\?"),
        ("data.val.lenght=3", r"data\.val\.lenght: unknown parameter 'lenght'; did you mean 'length'\?"),
        ("optimizer.lr=-1", r"optimizer\.lr: .*greater than 0"),
        ("optimizer.type=SDG", r"optimizer\.type: .*did you mean 'SGD'"),
        ("model.head.type=ToyHat", r"model\.head\.type: .*ToyHead"),
        ("schedule.milestones=[0.5, -2]", r"schedule\.milestones"),
        ("precision=64", r"precision"),
        ("model.num_classes=7", r"num_classes"),
    ],
)
def test_wrong_keys_and_values_name_their_path(file, override, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        invoke("train", file, override, "--out", tmp_path / "run")
    if "num_classes" not in override:
        assert not (tmp_path / "shapes").exists()  # nothing was read, let alone made
    assert not (tmp_path / "run").exists()


def test_missing_data(config, tmp_path):
    config["data"] |= {
        "train": {"type": "CocoDataset", "annotations": "train.json", "images": "images"},
        "root": str(tmp_path / "nowhere"),
    }
    path = tmp_path / "missing.yaml"
    path.write_text(to_yaml(config))
    with pytest.raises(DataError, match=r"nowhere"):
        invoke("train", path, "--out", tmp_path / "run")


def test_wrong_accelerator(file):
    with pytest.raises(ConfigError, match="--accelerator should be one of auto, cpu, cuda, mps, got 'tpu'"):
        invoke("train", file, "--accelerator", "tpu")
    with pytest.raises(ConfigError, match="--devices should be a number above 0, or auto; got '0'"):
        invoke("train", file, "--devices", "0", "--accelerator", "cpu")


def test_hooks_import_neither_torch_nor_lightning():
    code = (
        "import sys, detcore_train.hooks, detcore_train; "
        "print([m for m in ('torch', 'lightning') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
