"""What tests of components need: the conformance kit, made-up data with edge cases by name, golden numbers.

Importing this package imports nothing; every public name is loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore.testing.catalog import all_checks, checks_of, run_check, subjects_of
    from detcore.testing.checking import Check, Trial, check, probe
    from detcore.testing.data import (
        image_of,
        make_assignment,
        make_batch,
        make_predictions,
        make_priors,
        make_proposals,
        make_pyramid,
        make_targets,
        pad_targets,
        reordered,
    )
    from detcore.testing.errors import ConformanceError, NotApplicableError
    from detcore.testing.parametrize import parametrize_with_checks
    from detcore.testing.registries import registered, registry_of
    from detcore.testing.subject import Subject

_HOME = {
    "Check": "checking",
    "ConformanceError": "errors",
    "NotApplicableError": "errors",
    "Subject": "subject",
    "Trial": "checking",
    "all_checks": "catalog",
    "check": "checking",
    "checks_of": "catalog",
    "image_of": "data",
    "make_assignment": "data",
    "make_batch": "data",
    "make_predictions": "data",
    "make_priors": "data",
    "make_proposals": "data",
    "make_pyramid": "data",
    "make_targets": "data",
    "pad_targets": "data",
    "parametrize_with_checks": "parametrize",
    "probe": "checking",
    "registered": "registries",
    "registry_of": "registries",
    "reordered": "data",
    "run_check": "catalog",
    "subjects_of": "catalog",
}

__all__ = [
    "Check",
    "ConformanceError",
    "NotApplicableError",
    "Subject",
    "Trial",
    "all_checks",
    "check",
    "checks_of",
    "image_of",
    "make_assignment",
    "make_batch",
    "make_predictions",
    "make_priors",
    "make_proposals",
    "make_pyramid",
    "make_targets",
    "pad_targets",
    "parametrize_with_checks",
    "probe",
    "registered",
    "registry_of",
    "reordered",
    "run_check",
    "subjects_of",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
