"""One stage of an RoI head: the parts that work together on one set of regions."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detcore.interfaces import Assigner, BBoxHead, MaskHead, RoIExtractor, Sampler, SharedHead
from detcore.interfaces.bbox_head import BBoxOutput, RoISample
from detcore.interfaces.sampler import SamplingPredictions
from detcore.structures import Assignment, ImageBatch, Losses, Proposals, Targets
from detcore_rcnn.conv_fc_bbox_head import ConvFCBBoxHead
from detcore_rcnn.masks import MaskPredictor, mask_losses, mask_positives
from detcore_rcnn.pisa import PrimeAttention
from detcore_rcnn.prediction import sampling_predictions
from detcore_rcnn.sampling import flat, sample_regions


@dataclass(frozen=True)
class Stage:
    """A view of an RoI head's parts; it owns none of them.

    Args:
        bbox_roi_extractor: Features of regions.
        bbox_head: Classes and boxes.
        assigner: Which ground truth each region answers for.
        sampler: Which of them enter the losses.
        num_classes: K.
        add_gt_as_proposals: Whether ground truths take part as regions too.
        pos_weight: Weight of positives in the classification loss.
        mask_roi_extractor: Features for the mask head; those of the box head where None.
        mask_head: Masks, or None.
        shared_head: A network on all region features, or None.
        attention: Weighs samples and boxes by their importance, or None.
    """

    bbox_roi_extractor: RoIExtractor
    bbox_head: BBoxHead
    assigner: Assigner
    sampler: Sampler
    num_classes: int
    add_gt_as_proposals: bool = True
    pos_weight: float = 1.0
    mask_roi_extractor: RoIExtractor | None = None
    mask_head: MaskHead | None = None
    shared_head: SharedHead | None = None
    attention: PrimeAttention | None = None

    def pool(
        self,
        features: tuple[Tensor, ...],
        boxes: Float[Tensor, "P 4"],
        image: Int[Tensor, "P"],
        for_masks: bool = False,
    ) -> Float[Tensor, "P C h w"]:
        """The features of regions that the heads see."""
        own = self.mask_roi_extractor if for_masks else None
        pooled = (own or self.bbox_roi_extractor)(features, boxes, image)
        return pooled if self.shared_head is None else self.shared_head(pooled)  # type: ignore[no-any-return]

    def run(self, features: tuple[Tensor, ...], proposals: Proposals) -> BBoxOutput:
        """What the box head predicts for all regions as one list, padding too."""
        return self.bbox_head(self.pool(features, *flat(proposals)))  # type: ignore[no-any-return]

    def sample(
        self,
        features: tuple[Tensor, ...],
        proposals: Proposals,
        targets: Targets,
        batch: ImageBatch,
        generator: torch.Generator | None = None,
    ) -> RoISample:
        """The regions that the losses are taken over; predictions are made only for a sampler that asks."""

        def predict(regions: Proposals, assignment: Assignment) -> SamplingPredictions:
            output = self.run(features, regions)
            return sampling_predictions(
                self.bbox_head, output, regions, assignment, targets, self.num_classes
            )

        return sample_regions(
            proposals, targets, batch,
            assigner=self.assigner, sampler=self.sampler, num_classes=self.num_classes,
            add_gt_as_proposals=self.add_gt_as_proposals, pos_weight=self.pos_weight,
            predict=predict, generator=generator,
        )  # fmt: skip

    def loss(
        self, features: tuple[Tensor, ...], sample: RoISample, targets: Targets
    ) -> tuple[Losses, BBoxOutput]:
        """The terms of the box head and of the mask head, and what the box head predicted for the sample."""
        pooled = self.pool(features, sample.boxes, sample.image)
        output = self.bbox_head(pooled)
        losses = self._box_losses(output, sample)
        if self.mask_head is None:
            return losses, output
        positives = mask_positives(sample)
        if self.mask_roi_extractor is None:
            seen = pooled[positives.rows]
        else:
            seen = self.pool(features, positives.boxes, positives.image, for_masks=True)
        own = mask_losses(self.mask_head, seen, positives, targets)
        return Losses({**losses, **own}, {**losses.metrics, **own.metrics}), output

    def _box_losses(self, output: BBoxOutput, sample: RoISample) -> Losses:
        if self.attention is None or not isinstance(self.bbox_head, ConvFCBBoxHead):
            return self.bbox_head.loss(output, sample)
        sample = self.attention.weigh(self.bbox_head, output, sample)
        losses = self.bbox_head.loss(output, sample)
        more = self.attention.loss(self.bbox_head, output, sample)
        return Losses({**losses, **more}, losses.metrics)

    def mask_predictor(self, features: tuple[Tensor, ...]) -> MaskPredictor | None:
        """Gives the masks of boxes, or None without a mask head."""
        if self.mask_head is None:
            return None
        return MaskPredictor(self.mask_head, functools.partial(self.pool, features, for_masks=True))
