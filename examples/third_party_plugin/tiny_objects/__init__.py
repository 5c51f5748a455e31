"""Detection of tiny objects. Importing this package imports no torch; its names are loaded on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiny_objects.nwd_loss import NWDLoss
    from tiny_objects.ranking_assigner import RankingAssigner

__all__ = ["NWDLoss", "RankingAssigner"]
_HOME = {"NWDLoss": "nwd_loss", "RankingAssigner": "ranking_assigner"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
