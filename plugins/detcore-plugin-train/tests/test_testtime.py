"""``predict`` and ``eval`` with several checkpoints, tiles and augmentation."""

import copy
import json

import pytest
import torch
from detcore_data import CocoMetric, Resize, ShapesDataset
from detcore_postprocess import AugmentedDetector, EnsembleDetector, TiledDetector, TransformedDetector
from detcore_train.commands.testtime import TestTime
from detcore_train.evaluation import evaluate
from detcore_train.prediction import predict_files
from typer.testing import CliRunner

import detcore
from detcore.cli.app import app
from detcore.config import to_yaml
from detcore.errors import ConfigError
from detcore.serialize import build
from detcore.structures import ClassMap


def invoke(*args):
    result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def runs(config, tmp_path):
    """A maker of runs that nobody trained: an experiment with a transform of its own, and a checkpoint."""

    def make(name, scale, seed, names=None):
        shapes = {
            "type": "ShapesDataset",
            "length": 4,
            "size": [48, 64],
            "transforms": [{"type": "Resize", "scale": scale}],
        }
        data = copy.deepcopy(config)
        data["data"] |= {"root": str(tmp_path / "shapes"), "train": shapes, "val": {**shapes, "seed": 1}}
        data["metric"] = {"type": "CocoMetric"}
        torch.manual_seed(seed)
        experiment = build(data, kind="experiments")
        detector = experiment.model
        detector.class_map = experiment.data.class_map
        if names is not None:
            detector.class_map = ClassMap(names)
        folder = tmp_path / name
        detcore.save(detector, folder / "best")
        (folder / "experiment.yaml").write_text(to_yaml(data))
        return folder

    return make


@pytest.fixture
def two(runs):
    return runs("one", [96, 72], 0), runs("two", [64, 48], 1)


@pytest.fixture
def images(two, tmp_path):
    return sorted((tmp_path / "shapes").rglob("*.png"))


def predicted(folder):
    data = json.loads((folder / "predictions.json").read_text())
    return data["model"], [[found["box"] for found in image["detections"]] for image in data["images"]]


def expected(detector, images, transforms=()):
    found = predict_files(detector, images, transforms, score_thr=0.0)
    return [[[pytest.approx(x, abs=0.011) for x in box] for box in one.found.boxes.tolist()] for one in found]


def member(run, scale):
    return TransformedDetector(detector=detcore.load(run / "best"), transforms=(Resize(scale=scale),))


def test_predict_with_an_ensemble(two, images, tmp_path):
    """Each member has the transforms of its own run."""
    folder = images[0].parent
    invoke("predict", folder, "--model", two[0], "--model", two[1], "--score-thr", 0, "--out", tmp_path / "o")
    model, boxes = predicted(tmp_path / "o")
    assert model == f"{two[0] / 'best'}, {two[1] / 'best'}"
    members = (member(two[0], (96, 72)), member(two[1], (64, 48)))
    paths = sorted(folder.glob("*.png"))
    assert boxes == expected(EnsembleDetector(detectors=members, max_per_img=300), paths)
    assert sum(map(len, boxes)) > 0


def test_predict_with_augmentation(two, images, tmp_path):
    invoke("predict", images[0], "--model", two[0], "--tta", "--score-thr", 0, "--out", tmp_path / "o")
    detector = AugmentedDetector(
        detector=detcore.load(two[0] / "best"), scales=(0.8, 1, 1.25), max_per_img=300
    )
    assert predicted(tmp_path / "o")[1] == expected(detector, images[:1], (Resize(scale=(96, 72)),))
    options = ("--scales", "0.5,2", "--flip", "--merge", "wbf")
    invoke("predict", images[0], "--model", two[0], *options, "--score-thr", 0, "--out", tmp_path / "w")
    assert predicted(tmp_path / "w")[1] != predicted(tmp_path / "o")[1]


def test_predict_in_tiles(two, images, tmp_path):
    """Tiles go through the run's transforms."""
    options = ("--tile", 32, "--tile-overlap", 0.25, "--score-thr", 0)
    invoke("predict", images[0], "--model", two[0], *options, "--out", tmp_path / "o")
    detector = TiledDetector(
        detector=member(two[0], (96, 72)), tile=32, overlap=0.25, full_size=(1333, 1333), max_per_img=300
    )
    assert predicted(tmp_path / "o")[1] == expected(detector, images[:1])


def test_eval_at_test_time(two, tmp_path):
    """The dataset then gives images as they are in the files."""
    whole = ShapesDataset(root=tmp_path / "shapes", length=4, size=(48, 64), seed=1)
    members = (member(two[0], (96, 72)), member(two[1], (64, 48)))
    ensemble = TestTime(tile=40).compose([(one.detector, one.transforms) for one in members])[0]
    assert isinstance(ensemble, TiledDetector)
    numbers = evaluate(ensemble, whole, CocoMetric()).values
    out = tmp_path / "numbers.json"
    invoke("eval", two[0], "--model", two[1], "--tile", 40, "--out", out, "--device", "cpu")
    data = json.loads(out.read_text())
    assert data["values"] == pytest.approx(numbers, nan_ok=True)
    assert data["checkpoint"] == f"{two[0] / 'best'}, {two[1] / 'best'}"
    plain, mirrored = tmp_path / "plain.json", tmp_path / "mirrored.json"
    invoke("eval", two[0], "--out", plain, "--device", "cpu")
    invoke("eval", two[0], "--flip", "--out", mirrored, "--device", "cpu")
    assert set(json.loads(plain.read_text())["values"]) == set(json.loads(mirrored.read_text())["values"])


@pytest.mark.reliability(
    area="test-time",
    fault="runs of different classes given as one ensemble on the command line",
    outcome="refused; the message names the classes that only one has",
)
def test_runs_of_other_classes_are_refused(runs, two, images, tmp_path):
    names = tuple(detcore.load(two[0] / "best").class_map.names)
    other = runs("other", [64, 48], 2, names=(*names[:-1], "giraffe"))
    with pytest.raises(ConfigError, match=f"lacks {names[-1]} and has giraffe"):
        invoke("predict", images[0], "--model", two[0], "--model", other, "--out", tmp_path / "o")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--merge", "mean"), "--merge should be one of nms, soft_nms, wbf, got 'mean'"),
        (("--scales", "1;2"), "--scales should be factors .* got '1;2'"),
        (("--scales", "0"), "--scales should be factors"),
        (("--scales", "nan"), "--scales should be factors"),
    ],
)
def test_options_are_checked(options, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        invoke("predict", tmp_path, "--model", tmp_path, "--out", tmp_path / "o", *options)


def test_all_ways_to_merge_compose(two):
    member = detcore.load(two[0] / "best")
    for merge in ("nms", "soft_nms", "wbf"):
        options = TestTime(tile=32, scales=(1.0, 2.0), flip=True, merge=merge)
        detector, left = options.compose([(member, ()), (member, ())])
        assert left == ()
        assert detector([torch.randint(256, (3, 48, 64), dtype=torch.uint8)]).boxes.shape == (1, 300, 4)
    assert TestTime().compose([(member, ())]) == (member, ())
