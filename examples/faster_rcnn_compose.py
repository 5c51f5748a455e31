"""Faster R-CNN composed in Python, with another assigner, sampler and loss, trained on generated pictures.

Each part is an object or a spec in its typed place; one of them is a class of this file, registered nowhere.
The pictures and the training loop are those of compose.py.
Run ``python examples/faster_rcnn_compose.py``; it takes about a minute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from compose import CLASSES, run
from detcore_assigners import MaxIoUAssigner
from detcore_fpn import FPN
from detcore_losses import FocalLoss, GIoULoss
from detcore_rcnn import LevelNMSPostprocess, RPNHead, Shared2FCBBoxHead, SingleRoIExtractor, StandardRoIHead
from detcore_resnet import ResNet
from pydantic import Field

from detcore import TwoStageDetector
from detcore.interfaces import Sampler
from detcore.interfaces.sampler import SamplingPredictions
from detcore.structures import Assignment, Sample


class HardestSampler(Sampler):
    """The regions that the head gets most wrong, positives and negatives alike.

    Shrivastava et al., "Training Region-based Object Detectors with Online Hard Example Mining"
    (arXiv:1604.03540), here without a quota for positives.

    Args:
        num: Regions per image.
    """

    def __init__(self, *, num: Annotated[int, Field(ge=1)] = 32) -> None:
        self.num = num

    def sample(
        self,
        assignment: Assignment,
        *,
        predict: Callable[[], SamplingPredictions] | None = None,
        generator: torch.Generator | None = None,
    ) -> Sample:
        """See :class:`~detcore.interfaces.Sampler`."""
        if predict is None:
            raise ValueError("HardestSampler needs predictions; use it in a head that has them")
        takes_part = assignment.positive | assignment.negative
        losses = predict().losses.masked_fill(~takes_part, -1.0)
        hardest = losses.topk(min(self.num, losses.shape[1]), dim=1).indices
        chosen = torch.zeros_like(takes_part).scatter(1, hardest, True)
        return Sample(assignment.positive & chosen, assignment.negative & chosen)


def compose() -> TwoStageDetector:
    """The detector. Channels, strides and the number of classes are told once, or not at all."""
    model = TwoStageDetector(
        num_classes=len(CLASSES),
        backbone=ResNet(depth=18, base_channels=16),
        neck=FPN.spec(out_channels=32, num_outs=4),
        rpn_head=RPNHead.spec(
            feat_channels=32,
            loss_cls=FocalLoss(gamma=1.0),
            train_postprocess=LevelNMSPostprocess(nms_pre=200, max_per_img=64),
            postprocess=LevelNMSPostprocess(nms_pre=200, max_per_img=32),
        ),
        roi_head=StandardRoIHead.spec(
            bbox_roi_extractor=SingleRoIExtractor.spec(output_size=5, sampling_ratio=2, finest_scale=14),
            bbox_head=Shared2FCBBoxHead.spec(
                fc_out_channels=128, reg_class_agnostic=True, loss_bbox=GIoULoss(loss_weight=5.0)
            ),
            assigner=MaxIoUAssigner(
                pos_iou_thr=0.55, neg_iou_thr=(0.05, 0.5), min_pos_iou=0.55, match_low_quality=False
            ),
            sampler=HardestSampler(num=32),
        ),
    )
    model.class_map = CLASSES
    return model


if __name__ == "__main__":
    torch.manual_seed(0)
    run(compose(), "Composes a small Faster R-CNN and trains it on generated pictures.")
