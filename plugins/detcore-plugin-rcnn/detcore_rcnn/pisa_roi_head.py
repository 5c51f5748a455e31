"""The RoI head of PISA."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from detcore_assigners import MaxIoUAssigner
from detcore_losses import SmoothL1Loss
from detcore_postprocess import NMSPostprocess
from detcore_samplers import ScoreHLRSampler
from pydantic import Field

from detcore.component import Part, wired
from detcore.interfaces import Assigner, BBoxHead, MaskHead, Postprocess, RoIExtractor, Sampler, SharedHead
from detcore.structures import FeatureSpec
from detcore_rcnn.conv_fc_bbox_head import ConvFCBBoxHead
from detcore_rcnn.pisa import PrimeAttention
from detcore_rcnn.shared_2fc_bbox_head import Shared2FCBBoxHead
from detcore_rcnn.single_roi_extractor import SingleRoIExtractor
from detcore_rcnn.stage import Stage
from detcore_rcnn.standard_roi_head import StandardRoIHead

_Power = Annotated[float, Field(ge=0)]
_Bias = Annotated[float, Field(ge=0, le=1)]


class PISARoIHead(StandardRoIHead):
    """:class:`StandardRoIHead` that attends to the samples that matter most for the result.

    Positives are weighed by how well they are localised among those of their object and class (ISR-P), negatives by
    the sampler (ISR-N), and a further term ``loss_carl`` weighs the box losses by the classes' scores, with
    gradients to the scores (CARL).

    Cao et al., "Prime Sample Attention in Object Detection" (arXiv:1904.04821), whose settings are the defaults.

    Args:
        in_features: Channels and strides of the pyramid; supplied by the detector.
        num_classes: K; supplied by the detector.
        bbox_roi_extractor: Features of regions; gets the pyramid.
        shared_head: A network on them that all heads share, or None.
        bbox_head: Classes and boxes; a :class:`ConvFCBBoxHead` or one derived from it.
        mask_roi_extractor: Features of regions for the mask head; those of the box head where None.
        mask_head: Masks of the detections, or None.
        assigner: Which ground truth each proposal answers for.
        sampler: Which of them enter the losses, and the weights of negatives.
        add_gt_as_proposals: Whether ground truths take part as proposals too.
        pos_weight: Weight of positives in the classification loss, before they are weighed.
        postprocess: From the scores of all proposals to detections.
        isr_k: Power of the weights of positives; None leaves them alone.
        isr_bias: Smallest of these weights before the power.
        carl_k: Power of the weights of box losses; None leaves ``loss_carl`` out.
        carl_bias: Smallest of these weights before the power.

    Raises:
        ConfigError: As :class:`StandardRoIHead`, or the box head is of another family.
    """

    def __init__(
        self,
        *,
        in_features: tuple[FeatureSpec, ...] = wired(),
        num_classes: Annotated[int, Field(ge=1)] = wired(),
        bbox_roi_extractor: Part[RoIExtractor] = SingleRoIExtractor.spec(),
        shared_head: Part[SharedHead] | None = None,
        bbox_head: Part[BBoxHead] = Shared2FCBBoxHead.spec(loss_bbox=SmoothL1Loss.spec(beta=1.0)),
        mask_roi_extractor: Part[RoIExtractor] | None = None,
        mask_head: Part[MaskHead] | None = None,
        assigner: Part[Assigner] = MaxIoUAssigner.spec(
            pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=False
        ),
        sampler: Part[Sampler] = ScoreHLRSampler.spec(num=512, pos_fraction=0.25),
        add_gt_as_proposals: bool = True,
        pos_weight: Annotated[float, Field(gt=0)] = 1.0,
        postprocess: Part[Postprocess] = NMSPostprocess.spec(nms_pre=None, min_bbox_size=None),
        isr_k: _Power | None = 2.0,
        isr_bias: _Bias = 0.0,
        carl_k: _Power | None = 1.0,
        carl_bias: _Bias = 0.2,
    ) -> None:
        super().__init__(
            in_features=in_features,
            num_classes=num_classes,
            bbox_roi_extractor=bbox_roi_extractor,
            shared_head=shared_head,
            bbox_head=bbox_head,
            mask_roi_extractor=mask_roi_extractor,
            mask_head=mask_head,
            assigner=assigner,
            sampler=sampler,
            add_gt_as_proposals=add_gt_as_proposals,
            pos_weight=pos_weight,
            postprocess=postprocess,
        )
        if not isinstance(self.bbox_head, ConvFCBBoxHead):
            raise ValueError(
                f"bbox_head: {type(self.bbox_head).__name__} has no coder and box loss to weigh by; use a "
                "ConvFCBBoxHead or one derived from it, or StandardRoIHead"
            )
        self.attention = PrimeAttention(
            None if isr_k is None else (isr_k, isr_bias), None if carl_k is None else (carl_k, carl_bias)
        )

    @property
    def stage(self) -> Stage:
        """The parts as they are now."""
        return replace(super().stage, attention=self.attention)
