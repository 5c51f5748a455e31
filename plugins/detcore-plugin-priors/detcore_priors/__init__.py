"""Prior generators: the boxes and points that dense predictions refer to."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_priors.anchors import AnchorGenerator
    from detcore_priors.grid import PriorGrid
    from detcore_priors.points import PointGenerator

__all__ = ["AnchorGenerator", "PointGenerator", "PriorGrid"]

_HOME = {"AnchorGenerator": "anchors", "PointGenerator": "points", "PriorGrid": "grid"}


def __getattr__(name: str) -> Any:
    """Imports what is asked for, and nothing before it is."""
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
