"""The RoI head of Fast, Faster and Mask R-CNN."""

from __future__ import annotations

from typing import Annotated

import torch
from detcore_assigners import MaxIoUAssigner
from detcore_postprocess import NMSPostprocess
from detcore_samplers import RandomSampler
from pydantic import Field
from torch import Tensor

from detcore.component import Part, make, wired
from detcore.interfaces import (
    Assigner,
    BBoxHead,
    MaskHead,
    Postprocess,
    RoIExtractor,
    RoIHead,
    Sampler,
    SharedHead,
)
from detcore.interfaces.bbox_head import RoISample
from detcore.structures import (
    Detections,
    FeatureSpec,
    ImageBatch,
    Losses,
    Proposals,
    Targets,
)
from detcore_rcnn.masks import predict_masks
from detcore_rcnn.prediction import detect_regions
from detcore_rcnn.region_features import make_head, make_shared
from detcore_rcnn.sampling import check_assigner, without_padding
from detcore_rcnn.shared_2fc_bbox_head import Shared2FCBBoxHead
from detcore_rcnn.single_roi_extractor import SingleRoIExtractor
from detcore_rcnn.stage import Stage


class StandardRoIHead(RoIHead):
    """One box head on the features of sampled proposals, and one mask head where asked for.

    Sources: Girshick, Fast R-CNN (arXiv:1504.08083); Ren et al., Faster R-CNN (arXiv:1506.01497); Lin et al.,
    Feature Pyramid Networks (arXiv:1612.03144), whose settings are the defaults; He et al., Mask R-CNN
    (arXiv:1703.06870).

    Args:
        in_features: Channels and strides of the pyramid; supplied by the detector.
        num_classes: K; supplied by the detector.
        bbox_roi_extractor: Features of regions; gets the pyramid.
        shared_head: A network on them that all heads share, or None.
        bbox_head: Classes and boxes; gets the features' channels and size.
        mask_roi_extractor: Features of regions for the mask head; those of the box head where None.
        mask_head: Masks of the detections, or None.
        assigner: Which ground truth each proposal answers for.
        sampler: Which of them enter the losses.
        add_gt_as_proposals: Whether ground truths take part as proposals too.
        pos_weight: Weight of positives in the classification loss.
        postprocess: From the scores of all proposals to detections.

    Raises:
        ConfigError: The assigner reads what proposals do not have, or there are features for masks without a
            mask head.
    """

    def __init__(
        self,
        *,
        in_features: tuple[FeatureSpec, ...] = wired(),
        num_classes: Annotated[int, Field(ge=1)] = wired(),
        bbox_roi_extractor: Part[RoIExtractor] = SingleRoIExtractor.spec(),
        shared_head: Part[SharedHead] | None = None,
        bbox_head: Part[BBoxHead] = Shared2FCBBoxHead.spec(),
        mask_roi_extractor: Part[RoIExtractor] | None = None,
        mask_head: Part[MaskHead] | None = None,
        assigner: Part[Assigner] = MaxIoUAssigner.spec(
            pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=False
        ),
        sampler: Part[Sampler] = RandomSampler.spec(num=512, pos_fraction=0.25),
        add_gt_as_proposals: bool = True,
        pos_weight: Annotated[float, Field(gt=0)] = 1.0,
        postprocess: Part[Postprocess] = NMSPostprocess.spec(nms_pre=None, min_bbox_size=None),
    ) -> None:
        super().__init__()
        if mask_roi_extractor is not None and mask_head is None:
            raise ValueError("mask_roi_extractor needs a mask_head; add one, or leave the extractor out")
        self.num_classes = num_classes
        self.add_gt_as_proposals, self.pos_weight = add_gt_as_proposals, pos_weight
        self.bbox_roi_extractor = make(bbox_roi_extractor, in_features=in_features)
        self.mask_roi_extractor = make(mask_roi_extractor, in_features=in_features)
        self.shared_head = make_shared(shared_head, self.bbox_roi_extractor, self.mask_roi_extractor)
        seen = self.shared_head or self.bbox_roi_extractor
        self.bbox_head = make_head(bbox_head, seen, num_classes)
        own = self.shared_head or self.mask_roi_extractor or seen
        self.mask_head = None if mask_head is None else make_head(mask_head, own, num_classes)
        self.assigner = make(assigner)
        self.sampler = make(sampler)
        self.postprocess = make(postprocess)
        check_assigner(self.assigner)

    def loss(
        self, features: tuple[Tensor, ...], proposals: Proposals, targets: Targets, batch: ImageBatch
    ) -> Losses:
        """Terms ``loss_cls``, ``loss_bbox`` and ``loss_mask``; see :class:`~detcore.interfaces.RoIHead`.

        Raises:
            DataError: There is a mask head, and objects without masks.
        """
        sample = self.sample(features, proposals, targets, batch)
        losses, _ = self.stage.loss(features, sample, targets)
        return losses

    def sample(
        self,
        features: tuple[Tensor, ...],
        proposals: Proposals,
        targets: Targets,
        batch: ImageBatch,
        generator: torch.Generator | None = None,
    ) -> RoISample:
        """The regions that the losses are taken over.

        Args:
            features: The pyramid, for samplers that rank by predictions.
            proposals: Regions.
            targets: Ground truth.
            batch: The images.
            generator: Source of randomness; torch's global one where None.
        """
        return self.stage.sample(features, proposals, targets, batch, generator)

    @torch.no_grad()
    def predict(self, features: tuple[Tensor, ...], proposals: Proposals, batch: ImageBatch) -> Detections:
        """See :class:`~detcore.interfaces.RoIHead`."""
        proposals = without_padding(proposals)
        output = self.stage.run(features, proposals)
        found = detect_regions(self.bbox_head, output, proposals, batch, self.postprocess)
        masks = self.stage.mask_predictor(features)
        return predict_masks([masks] if masks else [], found, batch)

    @property
    def stage(self) -> Stage:
        """The parts as they are now."""
        return Stage(
            self.bbox_roi_extractor, self.bbox_head, self.assigner, self.sampler,
            self.num_classes, self.add_gt_as_proposals, self.pos_weight,
            self.mask_roi_extractor, self.mask_head, self.shared_head,
        )  # fmt: skip
