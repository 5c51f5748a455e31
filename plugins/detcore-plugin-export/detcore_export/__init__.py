"""Detectors as files that run without detcore: ONNX and torch.export."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_export.errors import ExportMismatchError, MissingRuntimeError, NotExportableError
    from detcore_export.exporting import Exported, export
    from detcore_export.module import ExportModule
    from detcore_export.runtime import ExportedDetector, load
    from detcore_export.verification import Comparison, Tolerance

__all__ = [
    "Comparison",
    "ExportMismatchError",
    "ExportModule",
    "Exported",
    "ExportedDetector",
    "MissingRuntimeError",
    "NotExportableError",
    "Tolerance",
    "export",
    "load",
]

_HOME = {
    "Comparison": "verification",
    "ExportMismatchError": "errors",
    "ExportModule": "module",
    "Exported": "exporting",
    "ExportedDetector": "runtime",
    "MissingRuntimeError": "errors",
    "NotExportableError": "errors",
    "Tolerance": "verification",
    "export": "exporting",
    "load": "runtime",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for, and nothing before it is."""
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
