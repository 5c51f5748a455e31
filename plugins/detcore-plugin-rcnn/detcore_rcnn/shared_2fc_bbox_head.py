"""The box head of Faster R-CNN on a pyramid."""

from __future__ import annotations

from typing import Annotated

from detcore_coders import DeltaXYWHBBoxCoder
from detcore_losses import CrossEntropyLoss, L1Loss
from pydantic import Field

from detcore.component import Part, wired
from detcore.interfaces import BBoxCoder, BoxLoss, ClassificationLoss
from detcore.interfaces.bbox_head import RoISize
from detcore_rcnn.conv_fc_bbox_head import ConvFCBBoxHead

_Width = Annotated[int, Field(ge=1)]


class Shared2FCBBoxHead(ConvFCBBoxHead):
    """Two fully connected layers, then classes and boxes.

    Lin et al., Feature Pyramid Networks (arXiv:1612.03144), section 5.2.

    Args:
        in_channels: Channels of the region features; supplied by the RoI head.
        roi_feat_size: Their (h, w), in cells; supplied by the RoI head.
        num_classes: K; supplied by the detector.
        fc_out_channels: Width of the two layers.
        reg_class_agnostic: Whether all classes share one box.
        bbox_coder: What the network regresses.
        loss_cls: Loss on class logits; decides their number of channels.
        loss_bbox: Loss on the positives' codes or boxes.
        reg_decoded_bbox: Whether ``loss_bbox`` gets decoded boxes; None means as the loss works.
    """

    def __init__(
        self,
        *,
        in_channels: _Width = wired(),
        roi_feat_size: RoISize = wired(),
        num_classes: _Width = wired(),
        fc_out_channels: _Width = 1024,
        reg_class_agnostic: bool = False,
        bbox_coder: Part[BBoxCoder] = DeltaXYWHBBoxCoder.spec(target_stds=(0.1, 0.1, 0.2, 0.2)),
        loss_cls: Part[ClassificationLoss] = CrossEntropyLoss.spec(),
        loss_bbox: Part[BoxLoss] = L1Loss.spec(),
        reg_decoded_bbox: bool | None = None,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            roi_feat_size=roi_feat_size,
            num_classes=num_classes,
            num_shared_fcs=2,
            fc_out_channels=fc_out_channels,
            reg_class_agnostic=reg_class_agnostic,
            bbox_coder=bbox_coder,
            loss_cls=loss_cls,
            loss_bbox=loss_bbox,
            reg_decoded_bbox=reg_decoded_bbox,
        )
