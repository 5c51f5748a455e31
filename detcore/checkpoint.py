"""A detector on disk: weights as safetensors, its configuration, its class map. Nothing is ever unpickled.

A path ending in ``.safetensors`` is one file with configuration and class map in its header; any other path is a
folder with ``model.safetensors``, ``config.yaml`` and ``classes.json``.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_model
from torch import Tensor

from detcore import __version__
from detcore.config import parse_yaml, to_yaml
from detcore.errors import CheckpointError, ConfigError
from detcore.interfaces.detector import Detector
from detcore.serialize import build, dump
from detcore.structures import ClassMap
from detcore.weight_files import WEIGHTS as WEIGHTS
from detcore.weights import load_state, without_initial_values, without_weights

CONFIG, CLASSES = "config.yaml", "classes.json"
_CONFIG_KEY, _CLASSES_KEY, _VERSION_KEY = "detcore.config", "detcore.classes", "detcore.version"


def save(detector: Detector, path: str | Path) -> Path:
    """Writes a detector: all of it, or nothing where it fails.

    Args:
        detector: What to save.
        path: ``NAME.safetensors`` for one file, anything else for a folder. An existing checkpoint is replaced.

    Returns:
        The path.

    Raises:
        ConfigError: A part's class is not registered, so the configuration cannot be written.
        CheckpointError: The path exists and is something else.
    """
    path = Path(path)
    config, classes = dump(detector), detector.class_map.to_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        _save_file(detector, path, config, classes)
    else:
        _save_folder(detector, path, config, classes)
    return path


def _save_file(detector: Detector, path: Path, config: dict[str, Any], classes: dict[str, Any]) -> None:
    header = {_CONFIG_KEY: json.dumps(config), _CLASSES_KEY: json.dumps(classes), _VERSION_KEY: __version__}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_model(detector, temporary, metadata=header)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _save_folder(detector: Detector, path: Path, config: dict[str, Any], classes: dict[str, Any]) -> None:
    foreign = path.exists() and not (path / WEIGHTS).is_file()
    if foreign and (not path.is_dir() or any(path.iterdir())):
        raise CheckpointError(f"{path} exists and is no detcore checkpoint; choose another path")
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    retired = temporary.with_name(temporary.name + ".old")
    try:
        save_model(detector, str(temporary / WEIGHTS), metadata={_VERSION_KEY: __version__})
        (temporary / CONFIG).write_text(to_yaml(config), encoding="utf-8")
        (temporary / CLASSES).write_text(json.dumps(classes, ensure_ascii=False, indent=1), encoding="utf-8")
        temporary.chmod(0o755)
        if path.exists():
            os.replace(path, retired)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)


def load(
    path: str | Path, *, device: torch.device | str = "cpu", objects: Mapping[str, Any] | None = None
) -> Detector:
    """Reads a detector written by :func:`save`, in evaluation mode.

    Args:
        path: The file or folder.
        device: Where to put it.
        objects: Instances by path for parts whose classes are not registered.

    Raises:
        CheckpointError: It is missing or damaged, or weights and configuration do not fit; says which.
        ConfigError: The configuration cannot be built with what is installed here.
    """
    path = Path(path)
    config, classes, weights = _read_file(path) if path.suffix == ".safetensors" else _read_folder(path)
    build_it = functools.partial(build, config, kind="detectors", objects=objects, title=str(path))
    with without_weights():
        with without_initial_values():
            detector = build_it()
        if not dict(detector.named_parameters()).keys() <= detector.state_dict().keys():
            detector = build_it()  # what is not among its weights keeps its initial values
    load_state(detector, weights, source=str(path))
    detector.class_map = classes
    return detector.to(device).eval()  # type: ignore[no-any-return]


def _tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as cause:
        raise CheckpointError(f"{path}: damaged or not a safetensors file ({cause})") from cause


def _read_file(path: Path) -> tuple[dict[str, Any], ClassMap, dict[str, Tensor]]:
    weights, header = _tensors(path)
    for key in (_CONFIG_KEY, _CLASSES_KEY):
        if key not in header:
            raise CheckpointError(
                f"{path}: no {key!r} in its header; it holds weights only, not a detcore detector"
            )
    return _config(header[_CONFIG_KEY], path), _class_map(header[_CLASSES_KEY], path), weights


def _read_folder(path: Path) -> tuple[dict[str, Any], ClassMap, dict[str, Tensor]]:
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such checkpoint folder")
    absent = [name for name in (WEIGHTS, CONFIG, CLASSES) if not (path / name).is_file()]
    if absent:
        raise CheckpointError(f"{path}: not a complete detcore checkpoint; missing: {', '.join(absent)}")
    weights, _ = _tensors(path / WEIGHTS)
    try:
        config = parse_yaml((path / CONFIG).read_text(encoding="utf-8"), str(path / CONFIG)).data
    except (ConfigError, UnicodeDecodeError) as cause:
        raise CheckpointError(f"{path / CONFIG}: damaged ({cause})") from cause
    return config, _class_map((path / CLASSES).read_text(encoding="utf-8"), path / CLASSES), weights


def _class_map(text: str, path: Path) -> ClassMap:
    try:
        return ClassMap.from_dict(json.loads(text))
    except (ValueError, KeyError, TypeError, RecursionError) as cause:
        raise CheckpointError(f"{path}: damaged class map ({cause})") from cause


def _config(text: str, path: Path) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as cause:
        raise CheckpointError(f"{path}: damaged configuration ({cause})") from cause
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: damaged configuration (a {type(config).__name__}, not a mapping)")
    return config
