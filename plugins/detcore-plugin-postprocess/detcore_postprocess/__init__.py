"""Post-processing: from scored candidates to detections."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_postprocess.candidates import Candidates, select_candidates
    from detcore_postprocess.multiclass import multiclass_nms
    from detcore_postprocess.nms import NMSPostprocess
    from detcore_postprocess.results import keep_best, to_detections
    from detcore_postprocess.suppression import batched_nms, nms_mask

__all__ = [
    "Candidates",
    "NMSPostprocess",
    "batched_nms",
    "keep_best",
    "multiclass_nms",
    "nms_mask",
    "select_candidates",
    "to_detections",
]

_HOME = {
    "Candidates": "candidates",
    "NMSPostprocess": "nms",
    "batched_nms": "suppression",
    "keep_best": "results",
    "multiclass_nms": "multiclass",
    "nms_mask": "suppression",
    "select_candidates": "candidates",
    "to_detections": "results",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for, and nothing before it is."""
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
