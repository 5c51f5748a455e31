"""Datasets, transforms and metrics of detcore; importing this package imports no component and not torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_data.batch import ExampleBatch, collate
    from detcore_data.epoch_seeded import EpochSeeded, seeded

__all__ = [
    "EpochSeeded",
    "ExampleBatch",
    "collate",
    "seeded",
]

_MODULES = {
    "EpochSeeded": "epoch_seeded",
    "ExampleBatch": "batch",
    "collate": "batch",
    "seeded": "epoch_seeded",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
