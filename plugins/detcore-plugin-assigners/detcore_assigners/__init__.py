"""Assigners: which ground truth each prior answers for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_assigners.atss import ATSSAssigner
    from detcore_assigners.max_iou import MaxIoUAssigner

__all__ = ["ATSSAssigner", "MaxIoUAssigner"]

_MODULES = {"ATSSAssigner": "detcore_assigners.atss", "MaxIoUAssigner": "detcore_assigners.max_iou"}


def __getattr__(name: str) -> Any:
    """Imports a component on first use, so that importing the package stays instant."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
