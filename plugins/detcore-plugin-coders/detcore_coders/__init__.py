"""Box coders: boxes relative to priors, as networks regress them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_coders.delta import DeltaXYWHBBoxCoder
    from detcore_coders.distance import DistancePointBBoxCoder
    from detcore_coders.tblr import TBLRBBoxCoder

__all__ = ["DeltaXYWHBBoxCoder", "DistancePointBBoxCoder", "TBLRBBoxCoder"]

_HOME = {"DeltaXYWHBBoxCoder": "delta", "DistancePointBBoxCoder": "distance", "TBLRBBoxCoder": "tblr"}


def __getattr__(name: str) -> Any:
    """Imports what is asked for, and nothing before it is."""
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
