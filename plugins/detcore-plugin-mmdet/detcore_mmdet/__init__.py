"""MMDetection's configurations and checkpoints in detcore. Importing this package imports no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_mmdet.bridge import from_mmdet, import_detector
    from detcore_mmdet.checkpoints import Checkpoint, load_checkpoint
    from detcore_mmdet.config_file import read_config
    from detcore_mmdet.errors import TranslationError
    from detcore_mmdet.options import Options
    from detcore_mmdet.training.test_time import augmentation_of, augmented
    from detcore_mmdet.translation import Translation, translate, translation_of

__all__ = [
    "Checkpoint",
    "Options",
    "Translation",
    "TranslationError",
    "augmentation_of",
    "augmented",
    "from_mmdet",
    "import_detector",
    "load_checkpoint",
    "read_config",
    "translate",
    "translation_of",
]

_HOME = {
    "Checkpoint": "checkpoints",
    "Options": "options",
    "Translation": "translation",
    "TranslationError": "errors",
    "augmentation_of": "training.test_time",
    "augmented": "training.test_time",
    "from_mmdet": "bridge",
    "import_detector": "bridge",
    "load_checkpoint": "checkpoints",
    "read_config": "config_file",
    "translate": "translation",
    "translation_of": "translation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
