"""Training, evaluation and prediction; importing this package imports neither torch nor lightning."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_train.data import DetectionData
    from detcore_train.ema import EMA
    from detcore_train.engine.fit import FitResult, fit
    from detcore_train.evaluation import Evaluation, evaluate
    from detcore_train.experiment import Experiment
    from detcore_train.interfaces import (
        BatchGrouping,
        DataModule,
        EpochOrder,
        Optimizer,
        Schedule,
        WeightAverage,
    )
    from detcore_train.optimizers.adamw import AdamW
    from detcore_train.optimizers.sgd import SGD
    from detcore_train.orders.aspect_ratio import AspectRatioGrouping
    from detcore_train.orders.class_balanced import ClassBalancedOrder
    from detcore_train.schedules.cosine import CosineSchedule
    from detcore_train.schedules.one_cycle import OneCycleSchedule
    from detcore_train.schedules.poly import PolySchedule
    from detcore_train.schedules.step import StepSchedule

__all__ = [
    "EMA",
    "SGD",
    "AdamW",
    "AspectRatioGrouping",
    "BatchGrouping",
    "ClassBalancedOrder",
    "CosineSchedule",
    "DataModule",
    "DetectionData",
    "EpochOrder",
    "Evaluation",
    "Experiment",
    "FitResult",
    "OneCycleSchedule",
    "Optimizer",
    "PolySchedule",
    "Schedule",
    "StepSchedule",
    "WeightAverage",
    "evaluate",
    "fit",
]

_MODULES = {
    "AdamW": "optimizers.adamw",
    "AspectRatioGrouping": "orders.aspect_ratio",
    "BatchGrouping": "interfaces",
    "ClassBalancedOrder": "orders.class_balanced",
    "CosineSchedule": "schedules.cosine",
    "DataModule": "interfaces",
    "DetectionData": "data",
    "EMA": "ema",
    "EpochOrder": "interfaces",
    "Evaluation": "evaluation",
    "Experiment": "experiment",
    "FitResult": "engine.fit",
    "OneCycleSchedule": "schedules.one_cycle",
    "Optimizer": "interfaces",
    "PolySchedule": "schedules.poly",
    "SGD": "optimizers.sgd",
    "Schedule": "interfaces",
    "StepSchedule": "schedules.step",
    "WeightAverage": "interfaces",
    "evaluate": "evaluation",
    "fit": "engine.fit",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
