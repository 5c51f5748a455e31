"""Reading golden numbers: reference values on fixed inputs, in the folder that ``DETCORE_GOLDENS`` names.

``tasks/seed*/`` holds cases of single components, ``models/seed*/`` whole models, backbones, necks and heads with
weights that are synthesised from the reference's parameter names.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

VARIABLE = "DETCORE_GOLDENS"
DEFAULT = Path("../shared/goldens")


def folder() -> Path | None:
    """The folder with golden numbers, or None where there is none."""
    path = Path(os.environ.get(VARIABLE, DEFAULT))
    return path if (path / "tasks").is_dir() or (path / "models").is_dir() else None


def missing() -> str:
    """The reason to give when skipping; empty where the goldens are there."""
    return "" if folder() else f"no golden numbers: {VARIABLE} is unset and {DEFAULT} does not exist"


@functools.lru_cache(maxsize=4)
def _index(seed: int) -> tuple[dict[str, Any], Mapping[str, Any]]:
    root = folder()
    if root is None:
        return {}, {}
    path = root / "tasks" / f"seed{seed}"
    index = json.loads((path / "index.json").read_text())
    return index, {name: np.load(path / name) for name in index["files"]}


def task_cases(
    family: str, *classes: str, seed: int = 0, where: Callable[[Any], bool] = lambda case: True
) -> list[Any]:
    """The cases of one family, arrays still on disk; empty where there are no goldens. For ``parametrize``.

    Args:
        family: ``priors``, ``coders``, ``iou``, ``assigners``, ``samplers``, ``losses``, ``post``, ``schedule``, ...
        *classes: Names of the reference's classes; all where none is given.
        seed: Which set.
        where: Keeps the cases for which it is true.
    """
    index, _ = _index(seed)
    cases = [c for c in index.get("cases", []) if c["family"] == family]
    return [c for c in cases if (not classes or c["cls"] in classes) and where(c)]


def read(case: Mapping[str, Any], part: str, seed: int = 0) -> dict[str, Any]:
    """``inputs``, ``outputs`` or ``aux`` of a case, arrays as tensors, lists and numbers as they are."""
    _, files = _index(seed)

    def value(item: Any) -> Any:
        if isinstance(item, dict):
            return torch.from_numpy(np.array(files[case["file"]][item["npz"]]))
        return [value(x) for x in item] if isinstance(item, list) else item

    return {name: value(item) for name, item in case.get(part, {}).items()}


@functools.lru_cache(maxsize=1)
def rules() -> ModuleType:
    """``models/golden.py`` of the goldens: how weights, inputs and ground truth are synthesised and compared."""
    root = folder()
    if root is None:
        raise FileNotFoundError(missing())
    spec = importlib.util.spec_from_file_location("detcore_golden_rules", root / "models" / "golden.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(root / "models" / "golden.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def model_names(*prefixes: str, seed: int = 0) -> list[str]:
    """Names of the model goldens with one of the prefixes; empty where there are no goldens."""
    root = folder()
    if root is None:
        return []
    names = sorted(p.stem for p in (root / "models" / f"seed{seed}").glob("*.json"))
    return [name for name in names if not prefixes or name.startswith(prefixes)]


def model(name: str, seed: int = 0) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Description and recorded arrays of a model golden."""
    root = folder()
    if root is None:
        raise FileNotFoundError(missing())
    return rules().load(str(root / "models" / f"seed{seed}" / name))  # type: ignore[no-any-return]


def weights(meta: Mapping[str, Any]) -> dict[str, Tensor]:
    """The synthesised weights of a model golden, by the reference's names."""
    return {name: torch.from_numpy(array) for name, array in rules().weights(meta).items()}


def compare(
    name: str, value: Tensor, meta: Mapping[str, Any], data: Mapping[str, Any], **tolerance: float
) -> str:
    """Empty where ``value`` agrees with the record ``name``, else what differs; by the goldens' own tolerances."""
    array = value.detach().float().cpu().numpy()
    return rules().compare(name, array, data, meta["tensors"].get(name), **tolerance)  # type: ignore[no-any-return]
