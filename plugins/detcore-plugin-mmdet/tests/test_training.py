"""Data, pipelines, optimizer and schedule become an experiment."""

import pytest
from detcore_mmdet import translation_of
from detcore_mmdet.training.experiment import experiment_of

LOAD = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "with_bbox": True}]
PACK = [{"type": "PackDetInputs"}]


@pytest.fixture
def three(retinanet):
    """A configuration of 3.x."""

    def loader(ann_file, *steps, **rest):
        dataset = {
            "type": "CocoDataset",
            "data_root": "data/blood/",
            "ann_file": ann_file,
            "data_prefix": {"img": "images/"},
            "metainfo": {"classes": ("a", "b", "c")},
            "pipeline": [*LOAD, *steps, *PACK],
        }
        return {"batch_size": 4, "num_workers": 1, "dataset": dataset, **rest}

    resize = {"type": "Resize", "scale": (1333, 800), "keep_ratio": True}
    sgd = {"type": "SGD", "lr": 0.02, "momentum": 0.9, "weight_decay": 0.0001}
    warmup = {"type": "LinearLR", "start_factor": 0.001, "by_epoch": False, "begin": 0, "end": 500}
    steps = {
        "type": "MultiStepLR",
        "begin": 0,
        "end": 12,
        "by_epoch": True,
        "milestones": [8, 11],
        "gamma": 0.1,
    }
    return {
        "model": retinanet,
        "data_root": "data/blood/",
        "train_dataloader": loader("train.json", resize, {"type": "RandomFlip", "prob": 0.5}),
        "val_dataloader": loader("val.json", resize),
        "val_evaluator": {"type": "CocoMetric", "ann_file": "data/blood/val.json", "metric": "bbox"},
        "train_cfg": {"type": "EpochBasedTrainLoop", "max_epochs": 12, "val_interval": 2},
        "optim_wrapper": {
            "type": "OptimWrapper",
            "optimizer": sgd,
            "clip_grad": {"max_norm": 35, "norm_type": 2},
        },
        "param_scheduler": [warmup, steps],
        "default_scope": "mmdet",
    }


def experiment(cfg):
    return experiment_of(cfg, translation_of(cfg))


def test_3x(three):
    found = experiment(three)
    assert found.problems == ()
    config = found.config
    resize = {"type": "Resize", "scale": [1333, 800], "keep_ratio": True, "antialias": False}
    assert config["data"] == {
        "type": "DetectionData",
        "root": "data/blood",
        "classes": ["a", "b", "c"],
        "train": {
            "type": "CocoDataset",
            "annotations": "train.json",
            "images": "images",
            "transforms": [resize, {"type": "RandomFlip", "prob": 0.5, "direction": "horizontal"}],
        },
        "val": {"type": "CocoDataset", "annotations": "val.json", "images": "images", "transforms": [resize]},
        "batch_size": 4,
        "workers": 1,
    }
    assert config["optimizer"] == {"type": "SGD", "lr": 0.02, "weight_decay": 0.0001, "momentum": 0.9}
    assert config["schedule"] == {
        "type": "StepSchedule",
        "milestones": [8, 11],
        "gamma": 0.1,
        "warmup": "linear",
        "warmup_steps": 500,
        "warmup_ratio": 0.001,
        "warmup_end": "last_step",
    }
    assert (config["epochs"], config["clip_grad_norm"], config["val_every"]) == (12, 35, 2)
    assert config["model"]["backbone"]["weights"] == "torchvision://resnet18"
    assert "num_classes" not in config["model"]


def test_2x(retinanet):
    norm = {"type": "Normalize", "mean": [1, 2, 3], "std": [1, 1, 1], "to_rgb": True}
    scales = [(1333, 640), (1333, 800)]
    train = [
        *LOAD,
        {"type": "Resize", "img_scale": scales, "multiscale_mode": "range", "keep_ratio": True},
        {"type": "RandomFlip", "flip_ratio": 0.5},
        norm,
        {"type": "Pad", "size_divisor": 32},
        {"type": "DefaultFormatBundle"},
        {"type": "Collect", "keys": ["img"]},
    ]
    inner = [
        {"type": "Resize", "keep_ratio": True},
        {"type": "RandomFlip"},
        norm,
        {"type": "Collect", "keys": ["img"]},
    ]
    test = [
        LOAD[0],
        {"type": "MultiScaleFlipAug", "img_scale": (1333, 800), "flip": False, "transforms": inner},
    ]

    def dataset(split, pipeline):
        return {
            "type": "KittiTinyDataset",
            "ann_file": split,
            "img_prefix": "training/image_2",
            "data_root": "kitti",
            "classes": ("Car",),
            "pipeline": pipeline,
        }

    cfg = {
        "model": retinanet,
        "data": {
            "samples_per_gpu": 2,
            "workers_per_gpu": 0,
            "train": dataset("train.txt", train),
            "val": dataset("val.txt", test),
        },
        "optimizer": {"type": "SGD", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.0001},
        "optimizer_config": {"grad_clip": None},
        "lr_config": {
            "policy": "step",
            "warmup": "linear",
            "warmup_iters": 10,
            "warmup_ratio": 0.1,
            "step": [8, 99],
        },
        "runner": {"type": "EpochBasedRunner", "max_epochs": 12},
        "evaluation": {"interval": 3, "metric": "mAP"},
        "load_from": "checkpoints/retinanet.pth",
    }
    found = experiment(cfg)
    assert found.problems == ()
    data = found.config["data"]
    assert data["root"] == "kitti"
    assert data["train"] == {
        "type": "KittiDataset",
        "annotations": "training/label_2",
        "images": "training/image_2",
        "split": "train.txt",
        "filter_empty": True,
        "transforms": [
            {
                "type": "MultiScaleResize",
                "scales": [[1333, 640], [1333, 800]],
                "keep_ratio": True,
                "antialias": False,
                "mode": "range",
            },
            {"type": "RandomFlip", "prob": 0.5, "direction": "horizontal"},
        ],
    }
    assert data["val"]["transforms"] == [
        {"type": "Resize", "scale": [1333, 800], "keep_ratio": True, "antialias": False}
    ]
    assert found.config["schedule"]["milestones"] == [8]
    assert found.config["schedule"]["warmup_end"] == "next_step"
    assert found.config["val_every"] == 3
    notes = {note.path: note.message for note in found.notes}
    assert "give it to import-mmdet" in notes["load_from"]


def test_what_has_no_counterpart_is_listed(three):
    three["train_dataloader"]["dataset"]["pipeline"].insert(2, {"type": "CutOut"})
    three["train_dataloader"]["dataset"]["made_up"] = 1
    three["custom_hooks"] = [{"type": "EMAHook"}]
    three["optim_wrapper"]["optimizer"]["made_up"] = 2
    three["an_unused_variable"] = 3
    found = experiment(three)
    assert {problem.path for problem in found.problems} == {
        "train_dataloader.dataset.pipeline.2.type",
        "train_dataloader.dataset.made_up",
        "optim_wrapper.optimizer.made_up",
        "custom_hooks",
    }
    assert found.config is not None


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"optim_wrapper": {"optimizer": {"type": "Lion", "lr": 1}}}, "optim_wrapper.optimizer.type"),
        ({"train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 100}}, "train_cfg.type"),
        ({"param_scheduler": [{"type": "OneCycleLR"}]}, "param_scheduler.0.type"),
        ({"train_dataloader": {"dataset": {"type": "LVISV1Dataset"}}}, "train_dataloader.dataset.type"),
        ({"train_cfg": {"max_epochs": "many"}}, ""),
    ],
)
def test_without_a_part_there_is_no_experiment(three, change, path):
    found = experiment({**three, **change})
    assert found.config is None
    assert path in [problem.path for problem in found.problems]


def test_models_alone_have_no_experiment(retinanet):
    assert experiment_of(retinanet, translation_of(retinanet)) is None


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (
            {
                "type": "CosineAnnealingLR",
                "T_max": 12,
                "eta_min": 0.002,
                "end": 12,
                "convert_to_iter_based": True,
            },
            {"type": "CosineSchedule", "min_ratio": 0.1, "begin": 0.0, "by": "step", "warmup_steps": 0},
        ),
        (
            {"type": "PolyLR", "power": 0.9, "eta_min": 0.0, "begin": 6},
            {
                "type": "PolySchedule",
                "min_ratio": 0.0,
                "power": 0.9,
                "begin": 0.5,
                "by": "epoch",
                "warmup_steps": 0,
            },
        ),
        ([], {"type": "StepSchedule", "milestones": [], "warmup_steps": 0}),
    ],
)
def test_other_schedules(three, scheduler, expected):
    found = experiment({**three, "param_scheduler": scheduler})
    assert found.problems == ()
    schedule = found.config["schedule"]
    if "min_ratio" in schedule:
        schedule["min_ratio"] = round(schedule["min_ratio"], 9)
    assert schedule == expected


def test_masks_and_padding(three):
    pipeline = three["train_dataloader"]["dataset"]["pipeline"]
    pipeline[1] = {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True}
    pipeline.insert(3, {"type": "Pad", "size": (640, 640), "pad_val": {"img": (114, 114, 114)}})
    train = experiment(three).config["data"]["train"]
    assert train["with_masks"] is True
    assert {"type": "Pad", "pad_val": [114, 114, 114], "size": [640, 640]} in train["transforms"]


#: What the reference does with objects at the border, in parameters of detcore.
ALL = {"min_bbox_size": 0.0, "min_area_ratio": 0.0}


def test_a_pipeline_that_mixes_images(three):
    """As in the reference's YOLOX configurations."""
    inner = {**three["train_dataloader"]["dataset"], "pipeline": LOAD}
    three["train_dataloader"]["dataset"] = {
        "type": "MultiImageMixDataset",
        "dataset": inner,
        "pipeline": [
            {"type": "Mosaic", "img_scale": (640, 640), "pad_val": 114.0},
            {"type": "RandomAffine", "scaling_ratio_range": (0.1, 2), "border": (-320, -320)},
            {
                "type": "MixUp",
                "img_scale": (640, 640),
                "ratio_range": (0.8, 1.6),
                "pad_val": 114.0,
                "flip_ratio": 0.2,
            },
            {"type": "RandomFlip", "prob": 0.5},
            {"type": "FilterAnnotations", "min_gt_bbox_wh": (1, 1), "keep_empty": False},
            *PACK,
        ],
    }
    found = experiment(three)
    assert found.problems == ()
    train = found.config["data"]["train"]
    assert (train["type"], train["annotations"]) == ("CocoDataset", "train.json")
    assert train["transforms"] == [
        {"type": "Mosaic", "img_scale": [640, 640], "pad_val": 114, **ALL, "antialias": False},
        {
            "type": "RandomAffine", "scaling_ratio_range": (0.1, 2), "around": "corner", "border": [-320, -320],
            "border_val": [114, 114, 114], **ALL,
        },
        {
            "type": "MixUp", "img_scale": [640, 640], "ratio_range": (0.8, 1.6), "pad_val": 114, "flip_ratio": 0.8,
            **ALL, "antialias": False,
        },
        {"type": "RandomFlip", "prob": 0.5, "direction": "horizontal"},
        {"type": "FilterAnnotations", "min_gt_bbox_wh": [1, 1]},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (
            {"type": "CopyPaste", "max_num_pasted": 10},
            {"type": "CopyPaste", "max_num_pasted": 10, "leftover": "drop"},
        ),
        (
            {"type": "RandomCrop", "crop_type": "absolute_range", "crop_size": (384, 600), "allow_negative_crop": True},
            {
                "type": "RandomCrop", "crop_size": [384, 600], "crop_type": "absolute_range",
                "allow_negative_crop": True, **ALL,
            },
        ),
        (
            {"type": "MinIoURandomCrop", "min_ious": (0.1, 0.9), "min_crop_size": 0.3},
            {
                "type": "MinIoURandomCrop", "min_ious": (0.1, 0.9), "min_crop_size": 0.3, "min_bbox_size": 0.0,
                "leftover": "drop",
            },
        ),
        (
            {"type": "Expand", "mean": [123.675, 116.28, 103.53], "to_rgb": True, "ratio_range": (1, 4)},
            {"type": "Expand", "mean": [124, 116, 104], "ratio_range": (1, 4)},
        ),
        (
            {
                "type": "Albu",
                "transforms": [{"type": "OneOf", "p": 0.1, "transforms": [{"type": "Blur", "blur_limit": 3}]}],
                "bbox_params": {
                    "type": "BboxParams", "format": "pascal_voc", "min_visibility": 0.1,
                    "label_fields": ["gt_bboxes_labels", "gt_ignore_flags"], "filter_lost_elements": True,
                },
                "keymap": {"img": "image", "gt_bboxes": "bboxes"},
                "skip_img_without_anno": True,
            },
            {
                "type": "Albumentations",
                "transforms": [{"type": "OneOf", "p": 0.1, "transforms": [{"type": "Blur", "blur_limit": 3}]}],
                "min_visibility": 0.1,
            },
        ),
    ],
)  # fmt: skip
def test_augmentation(three, step, expected):
    three["train_dataloader"]["dataset"]["pipeline"].insert(2, step)
    found = experiment(three)
    assert found.problems == ()
    assert found.config["data"]["train"]["transforms"][0] == expected


def test_what_augmentation_cannot_do_is_told(three):
    three["train_dataloader"]["dataset"]["pipeline"][2:2] = [
        {"type": "Mosaic", "bbox_clip_border": False},
        {"type": "RandomAffine", "border": (-320, -160)},
    ]
    assert {problem.path for problem in experiment(three).problems} == {
        "train_dataloader.dataset.pipeline.2.bbox_clip_border",
        "train_dataloader.dataset.pipeline.3.border",
    }
