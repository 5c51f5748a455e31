"""Assigners: which ground truth each prior answers for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_assigners.atss import ATSSAssigner
    from detcore_assigners.costs.bbox_l1 import BBoxL1Cost
    from detcore_assigners.costs.classification import ClassificationCost
    from detcore_assigners.costs.cross_entropy import CrossEntropyLossCost
    from detcore_assigners.costs.dice import DiceCost
    from detcore_assigners.costs.focal import FocalLossCost
    from detcore_assigners.costs.iou import IoUCost
    from detcore_assigners.costs.match_cost import MatchCost
    from detcore_assigners.dynamic_soft_label import DynamicSoftLabelAssigner
    from detcore_assigners.hungarian import HungarianAssigner
    from detcore_assigners.max_iou import MaxIoUAssigner
    from detcore_assigners.sim_ota import SimOTAAssigner
    from detcore_assigners.task_aligned import TaskAlignedAssigner

__all__ = [
    "ATSSAssigner",
    "BBoxL1Cost",
    "ClassificationCost",
    "CrossEntropyLossCost",
    "DiceCost",
    "DynamicSoftLabelAssigner",
    "FocalLossCost",
    "HungarianAssigner",
    "IoUCost",
    "MatchCost",
    "MaxIoUAssigner",
    "SimOTAAssigner",
    "TaskAlignedAssigner",
]

_MODULES = {
    "ATSSAssigner": "detcore_assigners.atss",
    "BBoxL1Cost": "detcore_assigners.costs.bbox_l1",
    "ClassificationCost": "detcore_assigners.costs.classification",
    "CrossEntropyLossCost": "detcore_assigners.costs.cross_entropy",
    "DiceCost": "detcore_assigners.costs.dice",
    "DynamicSoftLabelAssigner": "detcore_assigners.dynamic_soft_label",
    "FocalLossCost": "detcore_assigners.costs.focal",
    "HungarianAssigner": "detcore_assigners.hungarian",
    "IoUCost": "detcore_assigners.costs.iou",
    "MatchCost": "detcore_assigners.costs.match_cost",
    "MaxIoUAssigner": "detcore_assigners.max_iou",
    "SimOTAAssigner": "detcore_assigners.sim_ota",
    "TaskAlignedAssigner": "detcore_assigners.task_aligned",
}


def __getattr__(name: str) -> Any:
    """Imports a component on first use, so that importing the package stays instant."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
