"""Samplers: which of the assigned priors a loss is taken over."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_samplers.pseudo import PseudoSampler
    from detcore_samplers.random import RandomSampler

__all__ = ["PseudoSampler", "RandomSampler"]

_MODULES = {"PseudoSampler": "detcore_samplers.pseudo", "RandomSampler": "detcore_samplers.random"}


def __getattr__(name: str) -> Any:
    """Imports a component on first use, so that importing the package stays instant."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
