"""Evaluation that says why; importing this package imports no component and not torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_eval.analysis import Analysis, analyse
    from detcore_eval.kitti_metric import KittiMetric
    from detcore_eval.voc_metric import VOCMetric

_MODULES = {
    "Analysis": "analysis",
    "KittiMetric": "kitti_metric",
    "VOCMetric": "voc_metric",
    "analyse": "analysis",
}

__all__ = ["Analysis", "KittiMetric", "VOCMetric", "analyse"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
