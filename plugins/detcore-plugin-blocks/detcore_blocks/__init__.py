"""Blocks to attach inside of networks. Importing this package imports no torch; names load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_blocks.aspp import ASPP
    from detcore_blocks.block_neck import BlockNeck
    from detcore_blocks.block_shared_head import BlockSharedHead
    from detcore_blocks.cbam import CBAM
    from detcore_blocks.context_block import ContextBlock
    from detcore_blocks.dcn import DCN
    from detcore_blocks.dcn_v2 import DCNv2
    from detcore_blocks.drop_block import DropBlock
    from detcore_blocks.dropout import Dropout
    from detcore_blocks.generalized_attention import GeneralizedAttention
    from detcore_blocks.non_local_2d import NonLocal2d
    from detcore_blocks.rfb import RFB
    from detcore_blocks.se_layer import SELayer
    from detcore_blocks.spp import SPP

__all__ = [
    "ASPP",
    "CBAM",
    "DCN",
    "RFB",
    "SPP",
    "BlockNeck",
    "BlockSharedHead",
    "ContextBlock",
    "DCNv2",
    "DropBlock",
    "Dropout",
    "GeneralizedAttention",
    "NonLocal2d",
    "SELayer",
]

_HOME = {
    "ASPP": "aspp",
    "BlockNeck": "block_neck",
    "BlockSharedHead": "block_shared_head",
    "CBAM": "cbam",
    "ContextBlock": "context_block",
    "DCN": "dcn",
    "DCNv2": "dcn_v2",
    "DropBlock": "drop_block",
    "Dropout": "dropout",
    "GeneralizedAttention": "generalized_attention",
    "NonLocal2d": "non_local_2d",
    "RFB": "rfb",
    "SELayer": "se_layer",
    "SPP": "spp",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
