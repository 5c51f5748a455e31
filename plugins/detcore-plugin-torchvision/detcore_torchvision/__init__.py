"""torchvision's detectors in detcore. Importing this package imports no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_torchvision.bridge import Imported, from_torchvision, import_detector
    from detcore_torchvision.errors import TorchvisionImportError
    from detcore_torchvision.report import KeyReport

__all__ = ["Imported", "KeyReport", "TorchvisionImportError", "from_torchvision", "import_detector"]

_HOME = {
    "Imported": "bridge",
    "KeyReport": "report",
    "TorchvisionImportError": "errors",
    "from_torchvision": "bridge",
    "import_detector": "bridge",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for, and nothing before it is."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
