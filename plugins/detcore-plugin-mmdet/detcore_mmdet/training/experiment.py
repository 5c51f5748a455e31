"""Data sections, pipelines and schedules of a configuration, as a file to train with."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detcore.config import to_yaml
from detcore.errors import Problem
from detcore_mmdet.options import Options, Report
from detcore_mmdet.training.datasets import dataset_of
from detcore_mmdet.training.schedule import clipping_of, epochs_of, optimizer_of, schedule_of
from detcore_mmdet.translation import Translation, is_loop

#: Keys of a configuration that configure the reference's machinery: logging, devices, drawing, tests.
_MACHINERY = (
    "auto_resume", "backend_args", "checkpoint_config", "cudnn_benchmark", "custom_imports", "dataset_type",
    "data_preprocessor", "data_root", "default_hooks", "default_scope", "device", "dist_params", "env_cfg",
    "evaluation", "file_client_args", "find_unused_parameters", "gpu_ids", "img_norm_cfg", "launcher",
    "log_config", "log_level", "log_processor", "max_epochs", "metainfo", "model", "mp_start_method",
    "opencv_num_threads", "resume", "resume_from", "seed", "test_cfg", "test_dataloader", "test_evaluator",
    "test_pipeline", "total_epochs", "train_pipeline", "tta_model", "tta_pipeline", "val_cfg",
    "val_evaluator", "vis_backends", "visualizer", "work_dir", "workflow",
)  # fmt: skip


#: Keys that change how is trained, and are not looked at.
_UNKNOWN = ("custom_hooks", "momentum_config", "optim_wrapper_cfg")


@dataclass(frozen=True)
class Experiment:
    """How to train, translated.

    Args:
        config: An experiment of detcore; None where something that it needs has no counterpart.
        notes: What was left out on purpose, or decided.
        problems: What has no counterpart.
    """

    config: dict[str, Any] | None
    notes: tuple[Problem, ...] = ()
    problems: tuple[Problem, ...] = ()


def experiment_of(cfg: Mapping[str, Any], model: Translation) -> Experiment | None:
    """The experiment of a configuration, 2.x or 3.x; None where it says nothing about training data.

    Args:
        cfg: The whole configuration, as read.
        model: Its model. The number of classes comes from the data.
    """
    if not isinstance(cfg.get("data"), Mapping) and not isinstance(cfg.get("train_dataloader"), Mapping):
        return None
    report = Report()
    root = Options(cfg, "", report, lambda options: None)
    try:
        parts = _parts(root)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError) as cause:
        root.problem("", f"the training sections cannot be read ({type(cause).__name__}: {cause})")
        parts = None
    config = None if parts is None else {"type": "Experiment", "model": _model(model, root), **parts}
    _tell_rest(root)
    return Experiment(config, tuple(dict.fromkeys(report.notes)), tuple(dict.fromkeys(report.problems)))


def _model(translation: Translation, root: Options) -> dict[str, Any]:
    """The model without its number of classes, and with the pretrained weights that training begins with."""
    model = {name: value for name, value in translation.config.items() if name != "num_classes"}
    for place, address in translation.report.weights.items():
        name = place or "backbone"
        if address.startswith("torchvision://") and name in model:
            model[name] = {**model[name], "weights": address}
        else:
            remedy = f"download it and set model.{name}.weights to its path"
            root.problem(
                "model.init_cfg", f"the pretrained weights {address!r} cannot be fetched by that name", remedy
            )
    return model


def _tell_rest(root: Options) -> None:
    """Reports the keys that nobody read; those that the reference does not know are variables of the file."""
    if root.has("load_from"):
        root.note("load_from", f"{root.take('load_from')!r}: give it to import-mmdet as the checkpoint")
    if not is_loop(root.data.get("train_cfg") or {}):  # in 2.x it may be the model's
        root.options("train_cfg").take_all()
    for name in root.data:
        if name in _MACHINERY or name not in (*_UNKNOWN, *root.read):
            root.take(name)
    root.finish()


def _parts(root: Options) -> dict[str, Any] | None:
    data, optimizer, epochs = _data(root), optimizer_of(root), epochs_of(root)
    clipping = clipping_of(root)
    if optimizer is None and not root.report.problems:
        root.problem("optimizer", "is missing")
    schedule = None
    if optimizer is not None and epochs is not None:
        schedule = schedule_of(root, epochs, optimizer["lr"])
    elif epochs is None:
        root.problem("train_cfg.max_epochs", "is missing")
    if data is None or optimizer is None or schedule is None:
        return None
    result = {"data": data, "optimizer": optimizer, "schedule": schedule, "epochs": epochs, **clipping}
    return {**result, **_evaluation(root), **_scaling(root)}


def _evaluation(root: Options) -> dict[str, Any]:
    old, evaluator, loop = (
        root.options("evaluation"),
        root.options("val_evaluator"),
        root.options("train_cfg"),
    )
    old.take("interval")
    evaluator.take_all()
    old.take_all()
    metric = evaluator.data.get("metric", old.data.get("metric", "bbox"))
    metrics = [metric] if isinstance(metric, str) else list(metric)
    kinds = [kind for kind in metrics if kind in ("bbox", "segm")]
    if evaluator.type not in ("", "CocoMetric") or kinds != metrics:
        root.note("val_evaluator", f"evaluated by CocoMetric, in place of {evaluator.type or metrics}")
    interval = loop.take("val_interval", old.data.get("interval", 1))
    loop.take("type")
    loop.take("dynamic_intervals")
    return {"metric": {"type": "CocoMetric", "iou_types": kinds or ["bbox"]}, "val_every": interval}


def _scaling(root: Options) -> dict[str, Any]:
    scale = root.options("auto_scale_lr")
    size, enabled = scale.take("base_batch_size"), scale.take("enable", False)
    if size and not enabled:
        root.note(
            "auto_scale_lr",
            f"off; the learning rate is meant for {size} images per step: base_batch_size={size}",
        )
    return {"base_batch_size": size} if size and enabled else {}


def _data(root: Options) -> dict[str, Any] | None:
    """The data module, of the ``data`` of 2.x or the data loaders of 3.x."""
    old = root.options("data")
    if old.data:
        train, val = _unwrapped(old, "train"), _unwrapped(old, "val")
        old.take("test")
        sizes = {"batch_size": old.take("samples_per_gpu", 1), "workers": old.take("workers_per_gpu", 1)}
        for name in ("train_dataloader", "val_dataloader", "test_dataloader", "persistent_workers"):
            old.take(name)
    else:
        loader = root.options("train_dataloader")
        train, val = _unwrapped(loader, "dataset"), _unwrapped(_loader_of_val(root), "dataset")
        sizes = {"batch_size": loader.take("batch_size", 1), "workers": loader.take("num_workers", 0)}
        for name in (
            "persistent_workers",
            "sampler",
            "batch_sampler",
            "drop_last",
            "pin_memory",
            "collate_fn",
        ):
            loader.take(name)
    datasets = {
        "train": dataset_of(train, training=True) if train else None,
        "val": dataset_of(val, training=False) if val else None,
    }
    if datasets["train"] is None:
        return None
    found: dict[str, Any] = {name: value for name, value in datasets.items() if value is not None}
    folder = root.data.get("data_root") or (train.data.get("data_root") if train else None)
    return {"type": "DetectionData", **_shared(found, str(folder or "")), **sizes}


def _loader_of_val(root: Options) -> Options:
    loader = root.options("val_dataloader")
    for name in [name for name in loader.data if name != "dataset"]:
        loader.take(name)
    return loader


def _unwrapped(owner: Options, name: str) -> Options | None:
    """A dataset without the wrappers around it, which have no counterpart."""
    value = owner.take(name)
    path = name
    while isinstance(value, Mapping) and "dataset" in value and "pipeline" not in value:
        owner.problem(
            path, f"the wrapper {value.get('type')!r} has no counterpart in detcore, and is left out"
        )
        value, path = value["dataset"], f"{path}.dataset"
    return owner.nested(path, value) if isinstance(value, Mapping) else None


def _shared(datasets: dict[str, Any], root: str) -> dict[str, Any]:
    """What the datasets have in common, stated once: root folder and classes."""
    result: dict[str, Any] = {}
    paths = list(_paths(datasets))
    folder = root.rstrip("/")
    if folder and all(value == folder or value.startswith(f"{folder}/") for _, _, value in paths):
        result["root"] = folder
        for dataset, name, value in paths:
            dataset[name] = posixpath.relpath(value, folder)
    classes = [dataset.pop("classes", None) for dataset in datasets.values()]
    if any(classes):
        result["classes"] = next(names for names in classes if names)
    return {**result, **datasets}


def _paths(datasets: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, str]]:
    for dataset in datasets.values():
        for name in ("annotations", "images", "split"):
            if name in dataset:
                yield dataset, name, dataset[name]


def write_experiment(experiment: Experiment, path: Path) -> Path:
    """Writes an experiment; what has no counterpart stands in comments at its head."""
    lines = [f"# not translated: {problem}" for problem in experiment.problems]
    path.write_text("\n".join([*lines, to_yaml(experiment.config)]), encoding="utf-8")
    return path
