"""Datasets, transforms and metrics of detcore; importing this package imports no component and not torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_data.batch import ExampleBatch, collate
    from detcore_data.coco import CocoDataset
    from detcore_data.coco_metric import CocoMetric
    from detcore_data.collected import Collected, Found
    from detcore_data.concat import ConcatDataset
    from detcore_data.epoch_seeded import EpochSeeded, seeded
    from detcore_data.facts import DatasetFacts
    from detcore_data.ground_truth import image_of, records_of
    from detcore_data.kitti import KittiDataset, KittiObjects
    from detcore_data.mixing import MixTransform, apply_transforms
    from detcore_data.multi_scale_resize import MultiScaleResize
    from detcore_data.pad import Pad
    from detcore_data.photometric_distortion import PhotometricDistortion
    from detcore_data.random_flip import RandomFlip
    from detcore_data.records import Records
    from detcore_data.repeat import RepeatDataset
    from detcore_data.resize import Resize
    from detcore_data.segmentations import run_lengths
    from detcore_data.shapes import ShapesDataset
    from detcore_data.switch import with_transforms
    from detcore_data.voc import VocDataset

__all__ = [
    "CocoDataset",
    "CocoMetric",
    "Collected",
    "ConcatDataset",
    "DatasetFacts",
    "EpochSeeded",
    "ExampleBatch",
    "Found",
    "KittiDataset",
    "KittiObjects",
    "MixTransform",
    "MultiScaleResize",
    "Pad",
    "PhotometricDistortion",
    "RandomFlip",
    "Records",
    "RepeatDataset",
    "Resize",
    "ShapesDataset",
    "VocDataset",
    "apply_transforms",
    "collate",
    "image_of",
    "records_of",
    "run_lengths",
    "seeded",
    "with_transforms",
]

_MODULES = {
    "CocoDataset": "coco",
    "CocoMetric": "coco_metric",
    "Collected": "collected",
    "ConcatDataset": "concat",
    "DatasetFacts": "facts",
    "EpochSeeded": "epoch_seeded",
    "ExampleBatch": "batch",
    "Found": "collected",
    "KittiDataset": "kitti",
    "KittiObjects": "kitti",
    "MixTransform": "mixing",
    "MultiScaleResize": "multi_scale_resize",
    "Pad": "pad",
    "PhotometricDistortion": "photometric_distortion",
    "RandomFlip": "random_flip",
    "Records": "records",
    "RepeatDataset": "repeat",
    "Resize": "resize",
    "ShapesDataset": "shapes",
    "VocDataset": "voc",
    "apply_transforms": "mixing",
    "collate": "batch",
    "image_of": "ground_truth",
    "records_of": "ground_truth",
    "run_lengths": "segmentations",
    "seeded": "epoch_seeded",
    "with_transforms": "switch",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
