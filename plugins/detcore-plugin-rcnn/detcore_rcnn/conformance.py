"""Examples of this plugin's components, and of a whole detector, for the conformance kit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from detcore.hooks import hookimpl

if TYPE_CHECKING:
    from detcore.testing import Subject


@hookimpl
def detcore_conformance_examples() -> Iterable[Subject]:
    """Narrow heads, and a small Mask R-CNN."""
    from detcore_fpn import FPN
    from detcore_resnet import ResNet

    from detcore.detectors import TwoStageDetector
    from detcore.testing import Subject
    from detcore_rcnn import (
        CascadeRoIHead,
        ConvFCBBoxHead,
        FCNMaskHead,
        RPNHead,
        Shared2FCBBoxHead,
        Shared4Conv1FCBBoxHead,
        SingleRoIExtractor,
        StandardRoIHead,
    )

    box = Shared2FCBBoxHead.spec(fc_out_channels=16)
    mask = FCNMaskHead.spec(num_convs=1, conv_out_channels=8)
    standard = StandardRoIHead.spec(bbox_head=box)
    masks = standard.replace(mask_roi_extractor=SingleRoIExtractor.spec(output_size=14), mask_head=mask)
    detector = TwoStageDetector.spec(
        backbone=ResNet.spec(depth=18, base_channels=8),
        neck=FPN.spec(out_channels=16, num_outs=5),
        rpn_head=RPNHead.spec(feat_channels=16),
        roi_head=standard,
    )
    return [
        Subject(RPNHead.spec(feat_channels=16), wired={"num_classes": 1}),
        Subject(box),
        Subject(
            ConvFCBBoxHead.spec(num_shared_convs=1, num_shared_fcs=1, conv_out_channels=8, fc_out_channels=16)
        ),
        Subject(Shared4Conv1FCBBoxHead.spec(conv_out_channels=8, fc_out_channels=16)),
        Subject(mask),
        Subject(standard),
        Subject(masks, name="masks"),
        Subject(CascadeRoIHead.spec(bbox_head=box.replace(reg_class_agnostic=True))),
        Subject(detector),
    ]
