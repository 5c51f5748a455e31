"""``detcore inspect data``: findings, tables, JSON, the page with its pictures, and the exit code."""

import base64
import io
import json
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from detcore_data import CocoDataset, Resize, ShapesDataset
from detcore_data.inspection import Options, inspect_split, seen_objects
from detcore_eval.drawing import color_of
from detcore_eval.html import data_uri
from detcore_train.inspection.page import picture
from detcore_train.inspection.priors import PriorMatcher, check_priors
from PIL import Image
from typer.testing import CliRunner

from detcore.cli.app import app
from detcore.component import wired
from detcore.config import to_yaml
from detcore.detectors import SingleStageDetector
from detcore.errors import CheckpointError
from detcore.interfaces import Assigner, DenseHead
from detcore.structures import Assignment, DenseOutput, FeatureSpec, LevelShape, Targets


def invoke(*args):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


class CenterAssigner(Assigner):
    """A cell belongs to the first object that holds its centre."""

    needs = frozenset()

    def __init__(self) -> None:
        pass

    def assign(self, priors, targets, predictions=None, batch=None):
        centers = priors[None, :, None]
        low, high = targets.boxes[:, None, :, :2], targets.boxes[:, None, :, 2:]
        inside = ((centers > low) & (centers < high)).all(-1) & targets.matchable[:, None]
        return Assignment(inside.int().argmax(-1), inside.any(-1).to(torch.int8), inside.any(-1).float())


class LookingAssigner(CenterAssigner):
    """One whose answer depends on the weights."""

    needs = frozenset({"logits"})


class CellHead(DenseHead):
    """One prior per cell; only what matching needs."""

    def __init__(
        self,
        *,
        in_features: tuple[FeatureSpec, ...] = wired(),
        num_classes: int = wired(),
        assigner: Assigner | None = None,
    ) -> None:
        super().__init__()
        self.stride = in_features[0].stride
        self.assigner = assigner

    def forward(self, features, batch, targets=None):
        h, w = features[0].shape[-2:]
        maps = features[0].flatten(2).transpose(1, 2)
        return DenseOutput((LevelShape(h, w),), maps, maps[..., :4])

    def match(self, output, targets, batch):
        h, w = output.levels[0]
        y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
        return self.assigner.assign(torch.stack((x, y), -1).reshape(-1, 2) * self.stride, targets)

    def loss(self, output, targets, batch, assignment=None):
        raise AssertionError("nothing is trained")

    def predict(self, output, batch):
        raise AssertionError("nothing is predicted")


@pytest.fixture
def detector(toys):
    backbone = toys.resolve("backbones", "ToyBackbone")
    return lambda assigner: SingleStageDetector(
        num_classes=3, backbone=backbone(), head=CellHead.spec(assigner=assigner)
    )


def coco(folder, boxes, size=(64, 96), images=3, name="a"):
    """A COCO file with the same boxes in each image, and grey pictures that differ."""
    (folder / name).mkdir(parents=True)
    rows = []
    content = {"images": [], "annotations": rows, "categories": [{"id": 1, "name": "thing"}]}
    random = np.random.RandomState(len(name) + ord(name[0]))
    for i in range(images):
        pixels = np.full((*size, 3), 120, np.uint8) + random.randint(0, 9, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{i}.png")
        content["images"].append({"id": i, "file_name": f"{i}.png", "height": size[0], "width": size[1]})
        for box in boxes:
            rows.append({"id": len(rows), "image_id": i, "category_id": 1, "bbox": box})
    (folder / name / "a.json").write_text(json.dumps(content))
    return {"type": "CocoDataset", "annotations": f"{name}/a.json", "images": name}


# ------------------------------------------------------------------------------------------------- priors


def unmatched(detector, dataset):
    split = inspect_split("train", dataset)
    return list(check_priors(detector, split, dataset.transforms, Options(), lambda number: None))


def dataset_of(folder, part, **options):
    return CocoDataset(root=folder, annotations=part["annotations"], images=part["images"], **options)


def test_objects_between_the_priors_are_found(detector, tmp_path):
    # stride 8: centres at 4, 12, ...; the first box holds one, the second none, the third is a region to ignore
    part = coco(tmp_path, [[2, 2, 9, 9], [5, 5, 4, 4]])
    (finding,) = unmatched(detector(CenterAssigner()), dataset_of(tmp_path, part))
    assert (finding.check, finding.count) == ("unmatched-object", 3)
    assert finding.examples[0].annotation == 1
    assert "4.0 x 4.0 pixels in an image of 96 x 64" in str(finding.examples[0])
    assert "50.0%" in finding.what


def test_transforms_count(detector, tmp_path):
    part = coco(tmp_path, [[5, 5, 4, 4]])
    large = dataset_of(tmp_path, part, transforms=(Resize(scale=(288, 192)),))  # three times as large
    assert unmatched(detector(CenterAssigner()), large) == []


def test_matching_is_that_of_training(detector, tmp_path):
    dataset = ShapesDataset(root=tmp_path, length=6, size=(64, 96), object_size=(0.05, 0.4), max_objects=8)
    model = detector(CenterAssigner())
    matcher = PriorMatcher(model)
    split = inspect_split("train", dataset)
    total = 0
    for seen in seen_objects(split.records, split.sizes, (), range(len(dataset))):
        example = dataset[seen.image]
        batch = model.preprocess([example["image"]])
        output = model.head(model.features(batch), batch)
        targets = Targets.stack([{"boxes": example["boxes"], "labels": example["labels"]}])
        assignment = model.head.match(output, targets, batch)
        expected = {int(i) for i in assignment.gt_index[assignment.positive]}
        missed = matcher.unmatched(seen)
        assert {i for i in range(len(missed)) if not missed[i]} == expected
        total += len(missed)
    assert total > 6


def test_an_assigner_that_looks_at_predictions_is_not_checked(detector, tmp_path):
    part = coco(tmp_path, [[2, 2, 9, 9]])
    (finding,) = unmatched(detector(LookingAssigner()), dataset_of(tmp_path, part))
    assert (finding.check, finding.severity) == ("priors-not-checked", "note")
    assert "LookingAssigner looks at predictions (logits)" in str(finding.examples[0])


# ------------------------------------------------------------------------------------------------ pictures


class Images(HTMLParser):
    """Sources of the pictures, and addresses of anything else that a page would load."""

    def __init__(self):
        super().__init__()
        self.pictures, self.others = [], []

    def handle_starttag(self, tag, attrs):
        for key, value in attrs:
            if key in ("src", "href"):
                (self.pictures if value.startswith("data:image/jpeg;base64,") else self.others).append(value)


def decoded(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


@pytest.mark.parametrize("box", [[40, 20, 30, 30], [80, 50, 40, 40], [3, 3, 4, 4], [20, 20, 0, 9]])
def test_pictures_show_the_box(tmp_path, box):
    part = coco(tmp_path, [box])
    split = inspect_split("train", dataset_of(tmp_path, part), Options(small=60))
    example = split.findings[0].examples[0]
    shown = picture(split, example)
    assert shown.shape[0] == 3
    assert max(shown.shape) == 360
    color = torch.tensor(color_of(0))[:, None, None]
    assert ((shown.int() - color).abs().amax(0) < 30).sum() > 100
    assert np.abs(decoded(data_uri(shown)).astype(int).mean() - shown.float().mean().item()) < 3


def test_images_that_cannot_be_read_have_no_picture(tmp_path):
    part = coco(tmp_path, [[3, 3, 9, 9]])
    dataset = dataset_of(tmp_path, part)
    (tmp_path / "a" / "1.png").write_bytes(b"no image")
    (finding,) = (f for f in inspect_split("train", dataset).findings if f.severity == "error")
    assert picture(inspect_split("train", dataset), finding.examples[0]) is None


# ------------------------------------------------------------------------------------------------- command


@pytest.fixture
def experiment(config, tmp_path):
    """Writes an experiment on two splits of files."""

    def write(train, val=None, **more):
        del config["metric"]
        config["data"] |= {"root": str(tmp_path), "train": train} | more
        config["data"].pop("val") if val is None else config["data"].update(val=val)
        path = tmp_path / "tiny.yaml"
        path.write_text(to_yaml(config))
        return path

    return write


GOOD = [[10, 10, 30, 30], [50, 20, 30, 40]]


def test_good_data(experiment, tmp_path):
    file = experiment(coco(tmp_path, GOOD), coco(tmp_path, GOOD, name="b"))
    result = invoke("inspect", "data", file)
    assert result.exit_code == 0, result.output
    assert "0 errors, 0 warnings" in result.output


def test_faults_as_table_json_and_page(experiment, tmp_path):
    train = coco(tmp_path, [*GOOD, [5, 5, 0, 4], [80, 10, 40, 20], [2, 2, 3, 3], GOOD[0]])
    (tmp_path / "a" / "2.png").unlink()
    file = experiment(train, train | {"policy": "drop"})
    result = invoke("inspect", "data", file, "--json", tmp_path / "o/r.json", "--html", tmp_path / "o/r.html")
    assert result.exit_code == 1
    assert "missing-image" in result.output
    report = json.loads((tmp_path / "o/r.json").read_text())
    found = {(row["split"], row["check"]): row for row in report["findings"]}
    assert {check for split, check in found if split == "train"} >= {
        "missing-image", "degenerate-box", "box-over-border", "duplicate-annotation", "small-object",
    }  # fmt: skip
    assert found["val", "train-val-overlap"]["count"] == 3
    assert "leaves them out" in found["val", "box-over-border"]["remedy"]
    assert "cuts them off" in found["train", "box-over-border"]["remedy"]
    assert report["errors"] == 2
    assert report["splits"]["train"]["classes"][0] == {
        "label": 0, "dataset_id": 1, "name": "thing", "objects": 18, "images": 3, "ignored": 0,
    }  # fmt: skip
    page = Images()
    page.feed((tmp_path / "o/r.html").read_text())
    assert page.others == []
    assert len(page.pictures) >= 8
    assert all(decoded(uri).std() > 1 for uri in page.pictures)


def test_names_from_files_are_escaped_in_the_page(experiment, tmp_path):
    part = coco(tmp_path, [*GOOD, [5, 5, 0, 4]])
    content = json.loads((tmp_path / "a/a.json").read_text())
    content["categories"][0]["name"] = "<script>alert(1)</script>"
    (tmp_path / "a/a.json").write_text(json.dumps(content))
    invoke("inspect", "data", experiment(part), "--html", tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_a_policy_that_raises_is_reported_and_not_raised(experiment, tmp_path):
    file = experiment(coco(tmp_path, [*GOOD, [5, 5, 0, 4]]) | {"policy": "error"})
    result = invoke("inspect", "data", file)
    assert result.exit_code == 1
    assert "degenerate-box" in result.output


def test_overrides_and_a_split_that_cannot_be_read(experiment, tmp_path):
    file = experiment(coco(tmp_path, GOOD), coco(tmp_path, GOOD, name="b"))
    result = invoke(
        "inspect", "data", file, "data.val.annotations=nowhere.json", "--json", tmp_path / "r.json"
    )
    assert result.exit_code == 1
    report = json.loads((tmp_path / "r.json").read_text())
    (finding,) = (row for row in report["findings"] if row["severity"] == "error")
    assert (finding["check"], finding["split"]) == ("cannot-be-read", "val")
    assert "nowhere.json" in finding["examples"][0]["detail"]
    assert set(report["splits"]) == {"train"}


def test_datasets_of_datasets_are_inspected_one_by_one(experiment, tmp_path):
    """A joined training set with a repeated part, and transforms of the whole; the validation set is one of them."""
    plain = coco(tmp_path, GOOD)
    faulty = coco(tmp_path, [*GOOD, [5, 5, 0, 4]], name="b")
    joined = {
        "type": "ConcatDataset",
        "datasets": [plain, {"type": "RepeatDataset", "times": 3, "dataset": faulty | {"policy": "error"}}],
        "transforms": [{"type": "Resize", "scale": [12, 8]}],
    }
    data = {
        "order": {"type": "ClassBalancedOrder", "oversample_thr": 0.1},
        "final_transforms": [],
        "final_epochs": 1,
    }
    result = invoke("inspect", "data", experiment(joined, plain, **data), "--json", tmp_path / "r.json")
    assert result.exit_code == 1
    report = json.loads((tmp_path / "r.json").read_text())
    assert list(report["splits"]) == ["train[0]", "train[1]", "val"]
    assert report["splits"]["train[1]"]["images"] == 3
    found = {(row["split"], row["check"]): row for row in report["findings"]}
    assert "stops" in found["train[1]", "degenerate-box"]["remedy"]
    assert ("train[0]", "degenerate-box") not in found
    assert "images of val that are in train[0] too" in found["val", "train-val-overlap"]["what"]
    assert found["train[0]", "small-object"]["count"] == 6  # as the joined set's transforms leave them


def test_datasets_of_datasets_with_other_classes(experiment, tmp_path):
    first, second = coco(tmp_path, GOOD), coco(tmp_path, GOOD, name="b")
    content = json.loads((tmp_path / "b/a.json").read_text())
    content["categories"][0]["name"] = "other"
    (tmp_path / "b/a.json").write_text(json.dumps(content))
    file = experiment({"type": "ConcatDataset", "datasets": [first, second]})
    result = invoke("inspect", "data", file, "--json", tmp_path / "r.json")
    assert result.exit_code == 1
    found = [
        row for row in json.loads((tmp_path / "r.json").read_text())["findings"] if row["severity"] == "error"
    ]
    assert [(row["check"], row["split"]) for row in found] == [("classes-differ", "train[1]")]
    assert "train[0] and train[1] have different classes" in found[0]["what"]


def test_a_model_that_cannot_be_built_does_not_hide_the_rest(experiment, tmp_path, monkeypatch):
    def fail(self, mode=True):
        raise CheckpointError("these weights cannot be had")

    monkeypatch.setattr(SingleStageDetector, "train", fail)
    file = experiment(coco(tmp_path, [*GOOD, [5, 5, 0, 4]]))
    result = invoke("inspect", "data", file, "--json", tmp_path / "r.json")
    assert result.exit_code == 1
    found = {row["check"]: row for row in json.loads((tmp_path / "r.json").read_text())["findings"]}
    assert found["model-cannot-be-built"]["examples"][0]["detail"] == "these weights cannot be had"
    assert "degenerate-box" in found


def test_a_misspelt_class_is_reported_with_the_nearest(experiment, tmp_path):
    file = experiment(coco(tmp_path, GOOD), classes=["thong"])
    result = invoke("inspect", "data", file, "--json", tmp_path / "r.json")
    assert result.exit_code == 1
    (finding,) = json.loads((tmp_path / "r.json").read_text())["findings"]
    assert "did you mean 'thing'?" in finding["examples"][0]["detail"]


def test_the_shipped_heads_priors(experiment, config, tmp_path):
    for name in ("detcore_resnet", "detcore_fpn", "detcore_retina"):
        pytest.importorskip(name)
    config["model"] = {
        "type": "SingleStageDetector",
        "backbone": {"type": "ResNet", "depth": 18, "base_channels": 8},
        "neck": {"type": "FPN", "start_level": 1, "num_outs": 3, "out_channels": 16},
        "head": {
            "type": "RetinaHead",
            "feat_channels": 16,
            "stacked_convs": 1,
            "assigner": {"type": "MaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.4, "match_low_quality": False},
        },
    }  # fmt: skip
    file = experiment(coco(tmp_path, [[20, 10, 40, 40], [2, 2, 5, 5]]))
    invoke("inspect", "data", file, "--json", tmp_path / "r.json", "--small", 1)
    report = json.loads((tmp_path / "r.json").read_text())
    (finding,) = (row for row in report["findings"] if row["check"] == "unmatched-object")
    assert finding["count"] == 3
    assert {row["annotation"] for row in finding["examples"]} == {1, 3, 5}


def test_help_imports_neither_torch_nor_lightning():
    code = (
        "import sys; from typer.testing import CliRunner; from detcore.cli.app import app; "
        "result = CliRunner().invoke(app, ['inspect', 'data', '--help']); assert result.exit_code == 0; "
        "print([name for name in ('torch', 'lightning') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
