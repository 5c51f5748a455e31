"""detcore: typed components for object detection, found through entry points.

Importing this package imports neither torch nor any plugin; every name below is loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from detcore import registry
    from detcore.api import api_version
    from detcore.checkpoint import load, save
    from detcore.component import Component, Part, Spec, make, wired
    from detcore.detectors import (
        ImagePreprocessor,
        SingleStageDetector,
        TwoStageDetector,
        optimize_for_inference,
    )
    from detcore.errors import (
        BrokenPluginError,
        CheckpointError,
        ConfigError,
        DataError,
        DetcoreError,
        InterfaceVersionError,
        UnknownComponentError,
    )
    from detcore.serialize import build, dump
    from detcore.structures import (
        ClassMap,
        Detections,
        FeatureSpec,
        ImageBatch,
        Targets,
    )

_HOME = {
    "BrokenPluginError": "errors",
    "CheckpointError": "errors",
    "ClassMap": "structures",
    "Component": "component",
    "ConfigError": "errors",
    "DataError": "errors",
    "DetcoreError": "errors",
    "Detections": "structures",
    "FeatureSpec": "structures",
    "ImageBatch": "structures",
    "ImagePreprocessor": "detectors",
    "InterfaceVersionError": "errors",
    "Part": "component",
    "SingleStageDetector": "detectors",
    "Spec": "component",
    "Targets": "structures",
    "TwoStageDetector": "detectors",
    "UnknownComponentError": "errors",
    "api_version": "api",
    "build": "serialize",
    "dump": "serialize",
    "load": "checkpoint",
    "make": "component",
    "optimize_for_inference": "detectors",
    "save": "checkpoint",
    "wired": "component",
}
_SUBMODULES = frozenset({"registry", "config", "errors", "component", "structures", "interfaces", "boxes"})

__all__ = [
    "BrokenPluginError",
    "CheckpointError",
    "ClassMap",
    "Component",
    "ConfigError",
    "DataError",
    "DetcoreError",
    "Detections",
    "FeatureSpec",
    "ImageBatch",
    "ImagePreprocessor",
    "InterfaceVersionError",
    "Part",
    "SingleStageDetector",
    "Spec",
    "Targets",
    "TwoStageDetector",
    "UnknownComponentError",
    "__version__",
    "api_version",
    "build",
    "dump",
    "load",
    "make",
    "optimize_for_inference",
    "registry",
    "save",
    "wired",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"detcore.{_HOME[name]}"), name)
    elif name in _SUBMODULES:
        value = importlib.import_module(f"detcore.{name}")
    else:
        raise AttributeError(f"module 'detcore' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_SUBMODULES})
