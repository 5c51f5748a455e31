"""Losses: classification, box codes and boxes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_losses.associative_embedding import AssociativeEmbeddingLoss
    from detcore_losses.balanced_l1 import BalancedL1Loss
    from detcore_losses.bounded_iou import BoundedIoULoss
    from detcore_losses.ciou import CIoULoss
    from detcore_losses.cross_entropy import CrossEntropyLoss
    from detcore_losses.dice import DiceLoss
    from detcore_losses.diou import DIoULoss
    from detcore_losses.distillation import KnowledgeDistillationKLDivLoss
    from detcore_losses.distribution_focal import DistributionFocalLoss
    from detcore_losses.eiou import EIoULoss
    from detcore_losses.focal import FocalLoss
    from detcore_losses.gaussian_focal import GaussianFocalLoss
    from detcore_losses.ghmc import GHMC
    from detcore_losses.ghmr import GHMR
    from detcore_losses.giou import GIoULoss
    from detcore_losses.iou import IoULoss
    from detcore_losses.l1 import L1Loss
    from detcore_losses.mse import MSELoss
    from detcore_losses.quality_focal import QualityFocalLoss
    from detcore_losses.reduction import reduce_loss
    from detcore_losses.seesaw import SeesawLoss
    from detcore_losses.siou import SIoULoss
    from detcore_losses.smooth_l1 import SmoothL1Loss
    from detcore_losses.varifocal import VarifocalLoss

__all__ = [
    "GHMC",
    "GHMR",
    "AssociativeEmbeddingLoss",
    "BalancedL1Loss",
    "BoundedIoULoss",
    "CIoULoss",
    "CrossEntropyLoss",
    "DIoULoss",
    "DiceLoss",
    "DistributionFocalLoss",
    "EIoULoss",
    "FocalLoss",
    "GIoULoss",
    "GaussianFocalLoss",
    "IoULoss",
    "KnowledgeDistillationKLDivLoss",
    "L1Loss",
    "MSELoss",
    "QualityFocalLoss",
    "SIoULoss",
    "SeesawLoss",
    "SmoothL1Loss",
    "VarifocalLoss",
    "reduce_loss",
]

_HOME = {
    "AssociativeEmbeddingLoss": "associative_embedding",
    "BalancedL1Loss": "balanced_l1",
    "BoundedIoULoss": "bounded_iou",
    "CIoULoss": "ciou",
    "CrossEntropyLoss": "cross_entropy",
    "DIoULoss": "diou",
    "DiceLoss": "dice",
    "DistributionFocalLoss": "distribution_focal",
    "EIoULoss": "eiou",
    "FocalLoss": "focal",
    "GHMC": "ghmc",
    "GHMR": "ghmr",
    "GIoULoss": "giou",
    "GaussianFocalLoss": "gaussian_focal",
    "IoULoss": "iou",
    "KnowledgeDistillationKLDivLoss": "distillation",
    "L1Loss": "l1",
    "MSELoss": "mse",
    "QualityFocalLoss": "quality_focal",
    "SIoULoss": "siou",
    "SeesawLoss": "seesaw",
    "SmoothL1Loss": "smooth_l1",
    "VarifocalLoss": "varifocal",
    "reduce_loss": "reduction",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for, and nothing before it is."""
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
