"""Losses: classification, box codes and boxes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_losses.ciou import CIoULoss
    from detcore_losses.cross_entropy import CrossEntropyLoss
    from detcore_losses.diou import DIoULoss
    from detcore_losses.focal import FocalLoss
    from detcore_losses.giou import GIoULoss
    from detcore_losses.iou import IoULoss
    from detcore_losses.l1 import L1Loss
    from detcore_losses.reduction import reduce_loss
    from detcore_losses.smooth_l1 import SmoothL1Loss

__all__ = [
    "CIoULoss",
    "CrossEntropyLoss",
    "DIoULoss",
    "FocalLoss",
    "GIoULoss",
    "IoULoss",
    "L1Loss",
    "SmoothL1Loss",
    "reduce_loss",
]

_HOME = {
    "CIoULoss": "ciou",
    "CrossEntropyLoss": "cross_entropy",
    "DIoULoss": "diou",
    "FocalLoss": "focal",
    "GIoULoss": "giou",
    "IoULoss": "iou",
    "L1Loss": "l1",
    "SmoothL1Loss": "smooth_l1",
    "reduce_loss": "reduction",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for, and nothing before it is."""
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
