"""Box coders: boxes relative to priors, as networks regress them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_coders.bucketing import BucketingBBoxCoder
    from detcore_coders.delta import DeltaXYWHBBoxCoder
    from detcore_coders.distance import DistancePointBBoxCoder
    from detcore_coders.legacy_delta import LegacyDeltaXYWHBBoxCoder
    from detcore_coders.pseudo import PseudoBBoxCoder
    from detcore_coders.tblr import TBLRBBoxCoder
    from detcore_coders.yolo import YOLOBBoxCoder

__all__ = [
    "BucketingBBoxCoder",
    "DeltaXYWHBBoxCoder",
    "DistancePointBBoxCoder",
    "LegacyDeltaXYWHBBoxCoder",
    "PseudoBBoxCoder",
    "TBLRBBoxCoder",
    "YOLOBBoxCoder",
]

_HOME = {
    "BucketingBBoxCoder": "bucketing",
    "DeltaXYWHBBoxCoder": "delta",
    "DistancePointBBoxCoder": "distance",
    "LegacyDeltaXYWHBBoxCoder": "legacy_delta",
    "PseudoBBoxCoder": "pseudo",
    "TBLRBBoxCoder": "tblr",
    "YOLOBBoxCoder": "yolo",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for, and nothing before it is."""
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
