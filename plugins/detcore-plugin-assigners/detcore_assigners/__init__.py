"""Assigners: which ground truth each prior answers for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_assigners.approx_max_iou import ApproxMaxIoUAssigner
    from detcore_assigners.atss import ATSSAssigner
    from detcore_assigners.center_region import CenterRegionAssigner
    from detcore_assigners.costs.bbox_l1 import BBoxL1Cost
    from detcore_assigners.costs.classification import ClassificationCost
    from detcore_assigners.costs.cross_entropy import CrossEntropyLossCost
    from detcore_assigners.costs.dice import DiceCost
    from detcore_assigners.costs.focal import FocalLossCost
    from detcore_assigners.costs.iou import IoUCost
    from detcore_assigners.costs.match_cost import MatchCost
    from detcore_assigners.dynamic_soft_label import DynamicSoftLabelAssigner
    from detcore_assigners.grid import GridAssigner
    from detcore_assigners.hungarian import HungarianAssigner
    from detcore_assigners.max_iou import MaxIoUAssigner
    from detcore_assigners.point import PointAssigner
    from detcore_assigners.region import RegionAssigner
    from detcore_assigners.sim_ota import SimOTAAssigner
    from detcore_assigners.task_aligned import TaskAlignedAssigner
    from detcore_assigners.uniform import UniformAssigner

__all__ = [
    "ATSSAssigner",
    "ApproxMaxIoUAssigner",
    "BBoxL1Cost",
    "CenterRegionAssigner",
    "ClassificationCost",
    "CrossEntropyLossCost",
    "DiceCost",
    "DynamicSoftLabelAssigner",
    "FocalLossCost",
    "GridAssigner",
    "HungarianAssigner",
    "IoUCost",
    "MatchCost",
    "MaxIoUAssigner",
    "PointAssigner",
    "RegionAssigner",
    "SimOTAAssigner",
    "TaskAlignedAssigner",
    "UniformAssigner",
]

_MODULES = {
    "ATSSAssigner": "detcore_assigners.atss",
    "ApproxMaxIoUAssigner": "detcore_assigners.approx_max_iou",
    "BBoxL1Cost": "detcore_assigners.costs.bbox_l1",
    "CenterRegionAssigner": "detcore_assigners.center_region",
    "ClassificationCost": "detcore_assigners.costs.classification",
    "CrossEntropyLossCost": "detcore_assigners.costs.cross_entropy",
    "DiceCost": "detcore_assigners.costs.dice",
    "DynamicSoftLabelAssigner": "detcore_assigners.dynamic_soft_label",
    "FocalLossCost": "detcore_assigners.costs.focal",
    "GridAssigner": "detcore_assigners.grid",
    "HungarianAssigner": "detcore_assigners.hungarian",
    "IoUCost": "detcore_assigners.costs.iou",
    "MatchCost": "detcore_assigners.costs.match_cost",
    "MaxIoUAssigner": "detcore_assigners.max_iou",
    "PointAssigner": "detcore_assigners.point",
    "RegionAssigner": "detcore_assigners.region",
    "SimOTAAssigner": "detcore_assigners.sim_ota",
    "TaskAlignedAssigner": "detcore_assigners.task_aligned",
    "UniformAssigner": "detcore_assigners.uniform",
}


def __getattr__(name: str) -> Any:
    """Imports a component on first use, so that importing the package stays instant."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
