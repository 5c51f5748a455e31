"""Published weights by name, from torch's cache; the command; weights for training."""

import json

import pytest
import torch
from detcore_torchvision import from_torchvision
from detcore_torchvision.sources import address_of
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
from typer.testing import CliRunner

import detcore
from detcore.cli.app import app
from detcore.errors import CheckpointError
from detcore.weights import load_weights, read_weights

NAME = "FasterRCNN_ResNet50_FPN_Weights.COCO_V1"


@pytest.fixture
def cached(make, tmp_path, monkeypatch):
    """Weights of a smaller model in the place of published ones, where torch looks for downloads."""
    model = make("faster_rcnn_r18")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(model.state_dict(), folder / FasterRCNN_ResNet50_FPN_Weights.COCO_V1.url.rpartition("/")[2])
    return model


def test_names_and_addresses():
    assert address_of(NAME) == f"torchvision://{NAME}"
    assert address_of("retinanet_resnet50_fpn") == "torchvision://retinanet_resnet50_fpn"
    assert address_of("torchvision://x") == "torchvision://x"
    assert address_of("some/file.pth") == "some/file.pth"


def test_published_weights(cached):
    detector = from_torchvision(NAME)
    assert len(detector.class_map) == 80
    assert detector.class_map.names[0] == "person"
    assert detector.class_map.names[-1] == "toothbrush"
    assert detector.class_map.ids[-1] == 90
    assert detector.backbone.bn1.eps == 0  # what torchvision sets for these weights
    theirs = cached.roi_heads.box_predictor.cls_score.weight
    assert torch.equal(detector.roi_head.bbox_head.fc_cls.weight[[0, -1]], theirs[[1, 0]])
    assert len(from_torchvision(f"torchvision://{NAME}", keep_unused=True).class_map) == 90


def test_unknown_weights():
    with pytest.raises(
        CheckpointError, match=r"torchvision://FasterRCNN_Nothing.X: torchvision publishes no such"
    ):
        from_torchvision("torchvision://FasterRCNN_Nothing.X")


def test_backbones_keep_their_addresses(cached):
    """Both plugins answer to the scheme; a backbone's weights are not a detector's."""
    assert read_weights(f"torchvision://{NAME}").keys() == cached.state_dict().keys()


def test_weights_of_an_address_into_a_detector_of_other_classes(cached):
    address = f"torchvision://{NAME}"
    eighty = from_torchvision(cached, categories=FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"])
    want = {n: t.clone() for n, t in eighty.state_dict().items()}
    with torch.no_grad():
        for parameter in eighty.parameters():
            parameter.zero_()
    report = load_weights(eighty, address)
    assert not report.skipped
    assert all(torch.equal(t, want[n]) for n, t in eighty.state_dict().items())

    config = detcore.dump(eighty)
    three = detcore.build({**config, "num_classes": 3})
    with pytest.raises(
        CheckpointError, match=r"reinit=\['roi_head.bbox_head.fc_cls', 'roi_head.bbox_head.fc_reg'\]"
    ):
        load_weights(three, address)
    fresh = three.roi_head.bbox_head.fc_cls.weight.clone()
    report = load_weights(three, address, reinit=["roi_head.bbox_head.fc_cls", "roi_head.bbox_head.fc_reg"])
    assert len(report.reinitialised) == 4
    assert torch.equal(three.roi_head.bbox_head.fc_cls.weight, fresh)
    assert torch.equal(three.rpn_head.rpn_cls.weight, want["rpn_head.rpn_cls.weight"])

    ninety = detcore.build({**config, "num_classes": 90})
    load_weights(ninety, address)
    theirs = cached.roi_heads.box_predictor.cls_score.weight
    assert torch.equal(ninety.roi_head.bbox_head.fc_cls.weight[11], theirs[12])


def test_files_are_recognised_by_their_names(make, tmp_path):
    model = make("retinanet_r18")
    torch.save(model.state_dict(), tmp_path / "a.pth")
    detector = from_torchvision(model)
    want = detector.head.retina_cls.weight.clone()
    torch.nn.init.zeros_(detector.head.retina_cls.weight)
    load_weights(detector, str(tmp_path / "a.pth"))
    assert torch.equal(detector.head.retina_cls.weight, want)


# --------------------------------------------------------------------------------------------------- command


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in ("import-torchvision", *arguments)])


def test_import_of_a_file(make, tmp_path):
    model = make("retinanet_r18", num_classes=4)
    torch.save({"model": model.state_dict(), "epoch": 3}, tmp_path / "mine.pth")
    result = run(tmp_path / "mine.pth", "--classes", "car, van,tram", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "3 of torchvision's labels 1..3" in result.output
    assert "of torchvision's detections on noise are detcore's" in result.output
    assert "self-check: the saved model gives the same detections" in result.output
    detector = detcore.load(tmp_path / "out" / "model")
    assert detector.class_map.names == ("car", "van", "tram")
    assert detector.preprocessor.min_size == 800
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["labels"] == [1, 2, 3]
    assert report["weights"]["mapped"]["backbone.body.conv1.weight"] == "backbone.conv1.weight"


def test_errors_of_the_command_are_told_in_words(tmp_path):
    result = run(tmp_path / "nowhere.pth", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "nowhere.pth: no such file of weights" in result.output
    torch.save({"weight": torch.ones(1)}, tmp_path / "other.pth")
    result = run(tmp_path / "other.pth", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "of no RetinaNet, Faster R-CNN or Mask R-CNN" in result.output
    assert not (tmp_path / "out").exists()


def test_importing_the_package_is_instant():
    import subprocess
    import sys

    code = "import detcore_torchvision, detcore_torchvision.hooks, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
