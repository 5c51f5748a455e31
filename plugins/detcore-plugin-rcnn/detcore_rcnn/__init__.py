"""Two-stage detectors for detcore. Importing this package imports no torch; names load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_rcnn.cascade_roi_head import CascadeRoIHead
    from detcore_rcnn.conv_fc_bbox_head import ConvFCBBoxHead
    from detcore_rcnn.fcn_mask_head import FCNMaskHead
    from detcore_rcnn.generic_roi_extractor import GenericRoIExtractor
    from detcore_rcnn.level_nms import LevelNMSPostprocess
    from detcore_rcnn.pisa_roi_head import PISARoIHead
    from detcore_rcnn.rpn_head import RPNHead
    from detcore_rcnn.shared_2fc_bbox_head import Shared2FCBBoxHead
    from detcore_rcnn.shared_4conv1fc_bbox_head import Shared4Conv1FCBBoxHead
    from detcore_rcnn.single_roi_extractor import SingleRoIExtractor
    from detcore_rcnn.standard_roi_head import StandardRoIHead

__all__ = [
    "CascadeRoIHead",
    "ConvFCBBoxHead",
    "FCNMaskHead",
    "GenericRoIExtractor",
    "LevelNMSPostprocess",
    "PISARoIHead",
    "RPNHead",
    "Shared2FCBBoxHead",
    "Shared4Conv1FCBBoxHead",
    "SingleRoIExtractor",
    "StandardRoIHead",
]

_HOME = {
    "CascadeRoIHead": "cascade_roi_head",
    "ConvFCBBoxHead": "conv_fc_bbox_head",
    "FCNMaskHead": "fcn_mask_head",
    "GenericRoIExtractor": "generic_roi_extractor",
    "LevelNMSPostprocess": "level_nms",
    "PISARoIHead": "pisa_roi_head",
    "RPNHead": "rpn_head",
    "Shared2FCBBoxHead": "shared_2fc_bbox_head",
    "Shared4Conv1FCBBoxHead": "shared_4conv1fc_bbox_head",
    "SingleRoIExtractor": "single_roi_extractor",
    "StandardRoIHead": "standard_roi_head",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
