"""``detcore eval --report`` and ``--detections``."""

from __future__ import annotations

import json

import pytest
import yaml
from detcore_data import ShapesDataset
from detcore_train.commands.evaluate import Analysing, run_on_detections
from typer.testing import CliRunner

from detcore.cli.app import app
from detcore.errors import ConfigError, DataError


@pytest.fixture
def shapes(toys, tmp_path):
    """An experiment on files, and its annotation file."""
    folder = ShapesDataset(root=tmp_path / "data", length=6, size=(48, 64), empty=0.2).folder
    data = {"type": "CocoDataset", "annotations": "instances.json", "images": "images"}
    experiment = {
        "type": "Experiment",
        "model": {
            "type": "SingleStageDetector",
            "backbone": {"type": "ToyBackbone"},
            "head": {"type": "ToyHead"},
        },
        "data": {"type": "DetectionData", "root": str(folder), "train": data, "val": data, "workers": 0},
        "optimizer": {"type": "SGD", "lr": 0.01},
    }
    (tmp_path / "shapes.yaml").write_text(yaml.safe_dump(experiment))
    return tmp_path / "shapes.yaml", folder / "instances.json"


def results(annotations, path, *, every=1):
    """The ground truth as detections, without every second or third one."""
    rows = json.loads(annotations.read_text())["annotations"]
    found = [{key: row[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9} for row in rows]
    path.write_text(json.dumps(found[::every]))
    return len(found), len(found[::every])


def test_detections_of_a_file(shapes, tmp_path, capsys):
    file, annotations = shapes
    objects, found = results(annotations, tmp_path / "found.json", every=2)
    folder = tmp_path / "report"
    analysing = Analysing(folder, worst=2)
    run_on_detections(file, [], detections=tmp_path / "found.json", out=None, analysing=analysing)
    report = json.loads((folder / "report.json").read_text())
    assert report["errors"]["missed"]["count"] == objects - found
    assert report["detections"]["true"] == found
    assert report["objects"]["found"] == found
    assert len(report["worst_images"]) == 2
    numbers = json.loads((folder / "evaluation.json").read_text())
    assert numbers["values"] == report["values"]
    assert numbers["values"]["APl"] is None
    assert numbers["reasons"]["APl"] == "n/a: no ground truth of this size"
    assert len(json.loads((folder / "detections.json").read_text())) == found
    page = (folder / "report.html").read_text()
    assert page.count("<img ") == 2
    lines = capsys.readouterr().out.splitlines()
    assert any("n/a: no ground truth of this size" in line for line in lines)
    assert any(line.split()[:2] == ["missed", str(objects - found)] for line in lines)
    assert lines[-1].startswith("AP 0.")
    # what a report writes is what --detections reads
    again = Analysing(tmp_path / "again")
    run_on_detections(
        file, [], detections=folder / "detections.json", out=tmp_path / "x.json", analysing=again
    )
    assert json.loads((tmp_path / "again" / "report.json").read_text())["errors"] == report["errors"]


def test_without_a_report(shapes, tmp_path, capsys):
    file, annotations = shapes
    results(annotations, tmp_path / "found.json")
    run_on_detections(
        file, ["metric.type=VOCMetric"], detections=tmp_path / "found.json", out=None, analysing=Analysing()
    )
    assert capsys.readouterr().out.splitlines()[-1] == "AP 1.000  AP50 1.000"
    assert not list(tmp_path.glob("**/report.*"))


def test_the_command(shapes, tmp_path):
    file, annotations = shapes
    results(annotations, tmp_path / "found.json")
    options = [
        "--detections",
        tmp_path / "found.json",
        "--report",
        tmp_path / "report",
        "--score-thr",
        "0.95",
    ]
    arguments = ["eval", file, "data.val.policy=drop", *options, "--worst", "1", "--iou-thr", "0.6"]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.output.splitlines()[-1].startswith("AP 1.000")
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert (report["score"], report["overlap"], len(report["worst_images"])) == (0.95, 0.6, 1)
    assert report["errors"]["missed"]["count"] == sum(report["objects"].values())


@pytest.mark.reliability(
    area="evaluation",
    fault="a validation set without any ground truth",
    outcome="every number is n/a with the reason, in the table, the JSON and the report",
)
def test_no_ground_truth(shapes, tmp_path, capsys):
    file, annotations = shapes
    results(annotations, tmp_path / "found.json")
    annotations.write_text(json.dumps(json.loads(annotations.read_text()) | {"annotations": []}))
    analysing = Analysing(tmp_path / "report")
    run_on_detections(file, [], detections=tmp_path / "found.json", out=None, analysing=analysing)
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert set(report["values"].values()) == {None}
    assert set(report["reasons"]) >= set(report["values"])
    assert {row["dAP"] for row in report["errors"].values()} == {None}
    assert report["errors"]["background"]["count"] > 0
    out = capsys.readouterr().out
    assert "AP n/a  AP50 n/a" in out
    assert "n/a: no ground truth" in out


def test_detections_of_another_dataset(shapes, tmp_path):
    file, annotations = shapes
    results(annotations, tmp_path / "found.json")
    rows = json.loads((tmp_path / "found.json").read_text())
    (tmp_path / "found.json").write_text(json.dumps([*rows, rows[0] | {"image_id": 999}]))
    with pytest.raises(
        DataError, match=rf"detection {len(rows)} has the image_id 999, which is none of the dataset's"
    ):
        run_on_detections(file, [], detections=tmp_path / "found.json", out=None, analysing=Analysing())


def test_masks_that_are_not_there(shapes, tmp_path):
    file, annotations = shapes
    results(annotations, tmp_path / "found.json")
    for iou_type, message in (
        ("segm", "the validation set has no masks"),
        ("mask", "should be bbox or segm"),
    ):
        with pytest.raises(ConfigError, match=message):
            run_on_detections(
                file,
                [],
                detections=tmp_path / "found.json",
                out=None,
                analysing=Analysing(tmp_path / "report", iou_type),
            )


def test_a_run_and_its_report(config, tmp_path):
    from detcore_train.commands.evaluate import run

    from detcore import save
    from detcore.serialize import as_spec

    experiment = as_spec(config, kind="experiments").build()
    save(experiment.model, tmp_path / "best")
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(config))
    run(
        tmp_path / "best",
        [str(tmp_path / "toy.yaml")],
        out=None,
        batch_size=3,
        workers=0,
        device="cpu",
        analysing=Analysing(tmp_path / "report", score=0.2, worst=3),
    )
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["images"] == 7
    assert report["score"] == 0.2
    assert sum(report["objects"].values()) == 6
    assert report["source"]["checkpoint"] == str(tmp_path / "best")


@pytest.mark.reliability(
    area="evaluation",
    fault="training where the validation set has no ground truth, so that the monitored number is n/a",
    outcome="the run ends well, keeps a best checkpoint, and the number is empty in its log",
)
def test_training_goes_on_without_the_monitored_number(config, toys, tmp_path):
    from detcore_train import fit

    from detcore.serialize import as_spec

    class Empty(toys.resolve("datasets", "ToyDataset")):
        def target(self, index):
            return [], []

    config["metric"] = {"type": "CocoMetric"}
    experiment = as_spec(config, kind="experiments").build()
    experiment.data.val = Empty(length=3)
    fit(experiment, tmp_path / "run", accelerator="cpu")
    header, *rows = (tmp_path / "run" / "val.csv").read_text().splitlines()
    assert len(rows) == 2
    place = header.split(",").index("AP")
    assert {row.split(",")[place] for row in rows} == {""}
    assert (tmp_path / "run" / "best").is_dir()
