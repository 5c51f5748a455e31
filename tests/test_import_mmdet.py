"""``detcore import-mmdet``: from MMDetection's files to a detector that detects, and a file that trains."""

import json
import pprint

import pytest
import torch
from typer.testing import CliRunner

import detcore
from detcore.cli.app import app
from detcore.config import load as load_config
from detcore.serialize import build

MODEL = {
    "type": "RetinaNet",
    "data_preprocessor": {
        "type": "DetDataPreprocessor",
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
        "bgr_to_rgb": True,
        "pad_size_divisor": 32,
    },
    "backbone": {"type": "ResNet", "depth": 18, "norm_cfg": {"type": "BN"}, "norm_eval": False},
    "neck": {
        "type": "FPN",
        "in_channels": [64, 128, 256, 512],
        "out_channels": 16,
        "start_level": 1,
        "add_extra_convs": "on_input",
        "num_outs": 5,
    },
    "bbox_head": {
        "type": "RetinaHead",
        "num_classes": 2,
        "in_channels": 16,
        "feat_channels": 16,
        "stacked_convs": 1,
    },
    "train_cfg": {
        "assigner": {"type": "MaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.4, "min_pos_iou": 0},
        "allowed_border": -1,
        "pos_weight": -1,
        "debug": False,
    },
    "test_cfg": {
        "score_thr": 0.0,
        "nms": {"type": "nms", "iou_threshold": 0.5},
        "max_per_img": 20,
        "nms_pre": 100,
    },
}
DATA = """
root = {root!r}
classes = ('left', 'right')
pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=(64, 64), keep_ratio=True), dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs')]
dataset = dict(type='CocoDataset', data_root=root, ann_file='a.json', data_prefix=dict(img='images'),
               metainfo=dict(classes=classes), pipeline=pipeline)
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dataset)
val_dataloader = dict(batch_size=2, num_workers=0, dataset=dataset)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.001, momentum=0.9, weight_decay=0.0001))
param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=2),
                   dict(type='MultiStepLR', by_epoch=True, milestones=[1])]
"""


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in ("import-mmdet", *arguments)])


@pytest.fixture
def files(tmp_path):
    """Configuration with a base, and a checkpoint."""
    from detcore_mmdet import from_mmdet

    (tmp_path / "base.py").write_text(f"model = {pprint.pformat(MODEL)}\n")
    config = tmp_path / "config.py"
    config.write_text("_base_ = 'base.py'\nmodel = dict(bbox_head=dict(stacked_convs=2))\n")
    torch.manual_seed(0)
    model = {**MODEL, "bbox_head": {**MODEL["bbox_head"], "stacked_convs": 2}}
    state = from_mmdet(model, None).state_dict()
    weights = {
        "bbox_head." + n.removeprefix("head.") if n.startswith("head.") else n: t for n, t in state.items()
    }
    checkpoint = tmp_path / "weights.pth"
    torch.save({"state_dict": weights, "meta": {"dataset_meta": {"classes": ("left", "right")}}}, checkpoint)
    return config, checkpoint, state


def test_import(files, tmp_path):
    config, checkpoint, state = files
    result = run(config, checkpoint, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert (
        f"weights: {len(state)} mapped, 0 skipped, 0 unused, 0 missing, 0 of another shape" in result.output
    )
    assert "self-check: the saved model gives the same detections" in result.output
    assert "no train.yaml" in result.output
    detector = detcore.load(tmp_path / "out" / "model")
    assert detector.class_map.names == ("left", "right")
    assert all(torch.equal(tensor, state[name]) for name, tensor in detector.state_dict().items())
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["weights"]["mapped"]["bbox_head.retina_cls.bias"] == "head.retina_cls.bias"


def test_errors_are_told_in_words(files, tmp_path):
    config, checkpoint, _ = files
    config.write_text(config.read_text() + "import os\n")
    result = run(config, checkpoint, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "config.py:3: imports are not followed" in result.output
    config.write_text("_base_ = 'base.py'\n")
    result = run(config, checkpoint, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "unused: bbox_head.cls_convs.1.conv.weight" in result.output
    assert not (tmp_path / "out").exists()


def write_coco(folder):
    """Two pictures with a box each."""
    import numpy as np
    from PIL import Image

    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for i in range(4):
        pixels = np.full((64, 64, 3), 40 * i, np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 64})
        box = [5 + i, 8, 30, 40]
        annotations.append(
            {"id": i, "image_id": i, "category_id": 1 + i % 2, "bbox": box, "area": 1200, "iscrowd": 0}
        )
    categories = [{"id": 1, "name": "left"}, {"id": 2, "name": "right"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "a.json").write_text(json.dumps(content))


@pytest.mark.slow
def test_the_training_file_trains(files, tmp_path):
    config, checkpoint, _ = files
    write_coco(tmp_path / "data")
    config.write_text(config.read_text() + DATA.format(root=str(tmp_path / "data")))
    result = run(config, checkpoint, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    file = tmp_path / "out" / "train.yaml"
    experiment = build(load_config(file), kind="experiments")
    assert experiment.data.class_map.names == ("left", "right")
    assert len(experiment.data.train) == 4
    trained = CliRunner().invoke(
        app, ["train", str(file), "--out", str(tmp_path / "run"), "--accelerator", "cpu"]
    )
    assert trained.exit_code == 0, trained.output
