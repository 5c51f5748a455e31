"""Datasets."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from typing import Any

from detcore_mmdet.options import Options
from detcore_mmdet.training.pipeline import pipeline_of

#: Options about how the reference keeps a dataset in memory.
_TECHNICAL = ("backend_args", "file_client_args", "serialize_data", "lazy_init", "max_refetch", "palette",
              "test_mode", "return_classes")  # fmt: skip


def dataset_of(o: Options, *, training: bool) -> dict[str, Any] | None:
    """A dataset of detcore; None where the reference's has no counterpart.

    Args:
        o: The dataset's options.
        training: Whether it is trained on: 2.x leaves images without objects out then.
    """
    if o.type == "MultiImageMixDataset":
        return _mixed(o, training=training)
    make = _DATASETS.get(o.type)
    if make is None:
        o.problem(
            "type",
            f"the dataset {o.type!r} has no counterpart in detcore; convert its files to COCO's format",
        )
        return None
    pipeline = pipeline_of(o)
    result = make(o)
    if pipeline.with_masks and o.type == "CocoDataset":
        result["with_masks"] = True
    names = classes_of(o)
    if names is not None:
        result["classes"] = list(names)
    if training and _leaves_out_empty(o):
        result["filter_empty"] = True
    if pipeline.transforms:
        result["transforms"] = pipeline.transforms
    for name in _TECHNICAL:
        o.take(name)
    o.finish()
    return result


def _mixed(o: Options, *, training: bool) -> dict[str, Any] | None:
    """A dataset whose pipeline mixes images: here, its steps follow those of the dataset inside."""
    inner = o.take("dataset")
    if not isinstance(inner, Mapping):
        o.problem("dataset", f"expected a dict with 'type', got {inner!r:.60}")
        return None
    result = dataset_of(o.nested("dataset", inner), training=training)
    transforms = pipeline_of(o).transforms
    o.only("skip_type_keys")
    o.take("max_refetch")
    o.take("dynamic_scale")
    o.finish()
    if result is None:
        return None
    return {**result, "transforms": [*result.get("transforms", []), *transforms]}


def classes_of(o: Options) -> tuple[str, ...] | None:
    """The classes that are stated; None where the dataset's own are meant."""
    meta = o.options("metainfo")
    names = meta.take("classes", meta.take("CLASSES", o.take("classes")))
    meta.take("palette")
    if names is None:
        return None
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        o.problem("classes", f"expected a list of names, got {names!r:.60}")
        return None
    return tuple(names)


def _leaves_out_empty(o: Options) -> bool:
    f = o.options("filter_cfg")
    smallest = f.take("min_size", 0)
    if smallest:
        f.note("min_size", f"images with a side below {smallest} pixels are kept")
    three = f.take("filter_empty_gt")
    two = o.take("filter_empty_gt")
    if three is not None or two is not None:
        return bool(three if three is not None else two)
    return "img_prefix" in o.data  # the default of 2.x


def _images(o: Options) -> str:
    prefix = o.take("data_prefix", {})
    if isinstance(prefix, Mapping):
        return str(prefix.get("img", prefix.get("img_path", o.take("img_prefix", ""))))
    return str(prefix)


def _below(o: Options, path: str) -> str:
    root = o.take("data_root", "")
    return path if not root or posixpath.isabs(path) else posixpath.join(str(root), path)


def _coco(o: Options) -> dict[str, Any]:
    annotations, images = str(o.take("ann_file", "")), _images(o)
    o.only("proposal_file")
    o.only("seg_prefix")
    return {"type": "CocoDataset", "annotations": _below(o, annotations), "images": _below(o, images) or "."}


def _voc(o: Options) -> dict[str, Any]:
    folder, split = _images(o), str(o.take("ann_file", ""))
    return {
        "type": "VocDataset",
        "annotations": _below(o, posixpath.join(folder, "Annotations")),
        "images": _below(o, posixpath.join(folder, "JPEGImages")),
        "split": _below(o, split),
        "origin": 1,
    }


def _kitti(o: Options) -> dict[str, Any]:
    """The dataset of MMDetection's tutorial: labels lie beside the images, a file lists the split."""
    images, split = _images(o), str(o.take("ann_file", ""))
    labels = images.replace("image_2", "label_2")
    if labels == images:
        o.problem(
            "img_prefix", f"{images!r} should contain 'image_2': labels are looked for in 'label_2' beside it"
        )
    result = {"type": "KittiDataset", "annotations": _below(o, labels), "images": _below(o, images)}
    return {**result, "split": _below(o, split)}


_DATASETS: dict[str, Callable[[Options], dict[str, Any]]] = {
    "CocoDataset": _coco,
    "VOCDataset": _voc,
    "KittiTinyDataset": _kitti,
    "KittiDataset": _kitti,
}
