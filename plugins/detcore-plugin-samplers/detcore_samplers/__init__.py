"""Samplers: which of the assigned priors a loss is taken over."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_samplers.choice import rank_in_group
    from detcore_samplers.combined import CombinedSampler
    from detcore_samplers.instance_balanced import InstanceBalancedPosSampler
    from detcore_samplers.iou_balanced import IoUBalancedNegSampler
    from detcore_samplers.ohem import OHEMSampler
    from detcore_samplers.pseudo import PseudoSampler
    from detcore_samplers.random import RandomSampler
    from detcore_samplers.score_hlr import ScoreHLRSampler

__all__ = [
    "CombinedSampler",
    "InstanceBalancedPosSampler",
    "IoUBalancedNegSampler",
    "OHEMSampler",
    "PseudoSampler",
    "RandomSampler",
    "ScoreHLRSampler",
    "rank_in_group",
]

_HOME = {
    "CombinedSampler": "combined",
    "IoUBalancedNegSampler": "iou_balanced",
    "InstanceBalancedPosSampler": "instance_balanced",
    "OHEMSampler": "ohem",
    "PseudoSampler": "pseudo",
    "RandomSampler": "random",
    "ScoreHLRSampler": "score_hlr",
    "rank_in_group": "choice",
}


def __getattr__(name: str) -> Any:
    """Imports a component on first use, so that importing the package stays instant."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
