"""ResNet backbones for detcore. Importing this package imports no torch; names load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_resnet.blocks import BasicBlock, BlockOptions, Bottleneck, make_stage
    from detcore_resnet.placement import BlockPlacement
    from detcore_resnet.res_layer import ResLayer
    from detcore_resnet.resnet import ResNet

__all__ = ["BasicBlock", "BlockOptions", "BlockPlacement", "Bottleneck", "ResLayer", "ResNet", "make_stage"]

_HOME = {
    "BasicBlock": "blocks",
    "BlockOptions": "blocks",
    "BlockPlacement": "placement",
    "Bottleneck": "blocks",
    "ResLayer": "res_layer",
    "ResNet": "resnet",
    "make_stage": "blocks",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
