"""Prior generators: the boxes and points that dense predictions refer to."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_priors.anchors import AnchorGenerator
    from detcore_priors.grid import PriorGrid
    from detcore_priors.legacy import LegacyAnchorGenerator
    from detcore_priors.legacy_ssd import LegacySSDAnchorGenerator
    from detcore_priors.mlvl_points import MlvlPointGenerator
    from detcore_priors.points import PointGenerator
    from detcore_priors.ssd import SSDAnchorGenerator
    from detcore_priors.yolo import YOLOAnchorGenerator

__all__ = [
    "AnchorGenerator",
    "LegacyAnchorGenerator",
    "LegacySSDAnchorGenerator",
    "MlvlPointGenerator",
    "PointGenerator",
    "PriorGrid",
    "SSDAnchorGenerator",
    "YOLOAnchorGenerator",
]

_HOME = {
    "AnchorGenerator": "anchors",
    "LegacyAnchorGenerator": "legacy",
    "LegacySSDAnchorGenerator": "legacy_ssd",
    "MlvlPointGenerator": "mlvl_points",
    "PointGenerator": "points",
    "PriorGrid": "grid",
    "SSDAnchorGenerator": "ssd",
    "YOLOAnchorGenerator": "yolo",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for, and nothing before it is."""
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
