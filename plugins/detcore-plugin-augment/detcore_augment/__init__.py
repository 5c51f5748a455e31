"""Augmentation for detcore. Importing this package imports no component and not torch; names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_augment.albumentations_adapter import Albumentations
    from detcore_augment.copy_paste import CopyPaste
    from detcore_augment.expand import Expand
    from detcore_augment.filter_annotations import FilterAnnotations
    from detcore_augment.min_iou_random_crop import MinIoURandomCrop
    from detcore_augment.mix_up import MixUp
    from detcore_augment.mosaic import Mosaic
    from detcore_augment.random_affine import RandomAffine
    from detcore_augment.random_crop import RandomCrop

__all__ = [
    "Albumentations",
    "CopyPaste",
    "Expand",
    "FilterAnnotations",
    "MinIoURandomCrop",
    "MixUp",
    "Mosaic",
    "RandomAffine",
    "RandomCrop",
]

_MODULES = {
    "Albumentations": "albumentations_adapter",
    "CopyPaste": "copy_paste",
    "Expand": "expand",
    "FilterAnnotations": "filter_annotations",
    "MinIoURandomCrop": "min_iou_random_crop",
    "MixUp": "mix_up",
    "Mosaic": "mosaic",
    "RandomAffine": "random_affine",
    "RandomCrop": "random_crop",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
