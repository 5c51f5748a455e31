"""The RoI head of Cascade R-CNN."""

from __future__ import annotations

from typing import Annotated

import torch
from detcore_assigners import MaxIoUAssigner
from detcore_coders import DeltaXYWHBBoxCoder
from detcore_losses import SmoothL1Loss
from detcore_postprocess import NMSPostprocess
from detcore_samplers import RandomSampler
from pydantic import Field
from torch import Tensor, nn

from detcore.component import Part, Spec, make, wired
from detcore.interfaces import Assigner, BBoxHead, MaskHead, Postprocess, RoIExtractor, RoIHead, Sampler
from detcore.interfaces.bbox_head import BBoxOutput, RoISample
from detcore.structures import Detections, FeatureSpec, ImageBatch, Losses, Proposals, Targets
from detcore_rcnn.masks import predict_masks
from detcore_rcnn.prediction import detect_regions, refine
from detcore_rcnn.region_features import make_extractors, make_heads, per_stage
from detcore_rcnn.sampling import check_assigner, flat, without_padding
from detcore_rcnn.shared_2fc_bbox_head import Shared2FCBBoxHead
from detcore_rcnn.single_roi_extractor import SingleRoIExtractor
from detcore_rcnn.stage import Stage


def _head(scale: float) -> Spec[Shared2FCBBoxHead]:
    """A stage's box head; codes shrink as regions get better."""
    stds = tuple(round(std * scale, 3) for std in (0.1, 0.1, 0.2, 0.2))
    return Shared2FCBBoxHead.spec(
        reg_class_agnostic=True,
        bbox_coder=DeltaXYWHBBoxCoder.spec(target_stds=stds),  # type: ignore[arg-type]
        loss_bbox=SmoothL1Loss.spec(beta=1.0),
    )


def _assigner(iou: float) -> Spec[MaxIoUAssigner]:
    return MaxIoUAssigner.spec(pos_iou_thr=iou, neg_iou_thr=iou, min_pos_iou=iou, match_low_quality=False)


class CascadeRoIHead(RoIHead):
    """Box heads one after the other, each trained on the regions that the one before has refined.

    In training, stage i samples its regions by a stricter assigner than stage i - 1, from the boxes that
    stage i - 1 refined (its ground truths left out) and the ground truths. In evaluation all proposals pass
    all stages; logits, and mask probabilities, are averaged over the stages, boxes are the last one's.

    Source: Cai and Vasconcelos, Cascade R-CNN (arXiv:1712.00726, with masks arXiv:1906.09756), whose settings
    are the defaults. Where a parameter says "one or one for each", a tuple has as many entries as there are
    stages.

    Args:
        in_features: Channels and strides of the pyramid; supplied by the detector.
        num_classes: K; supplied by the detector.
        stage_loss_weights: Factor on the losses of each stage; their number is that of the stages.
        bbox_roi_extractor: Features of regions, one or one for each; they get the pyramid.
        bbox_head: Classes and boxes, one (with weights of its own in each stage) or one for each.
        mask_roi_extractor: Features for the mask heads, one or one for each; those of the box heads where
            None.
        mask_head: Masks of the detections, one (with weights of its own in each stage) or one for each, or
            None.
        assigner: Which ground truth each region answers for, one or one for each.
        sampler: Which of them enter the losses, one or one for each.
        add_gt_as_proposals: Whether ground truths take part as regions in each stage.
        pos_weight: Weight of positives in the classification losses.
        postprocess: From the scores of all proposals to detections.

    Raises:
        ConfigError: The numbers of parts differ from that of the stages, stages would share a head's weights,
            an assigner reads what regions do not have, or there are features for masks without a mask head.
    """

    def __init__(
        self,
        *,
        in_features: tuple[FeatureSpec, ...] = wired(),
        num_classes: Annotated[int, Field(ge=1)] = wired(),
        stage_loss_weights: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (
            1.0,
            0.5,
            0.25,
        ),
        bbox_roi_extractor: Part[RoIExtractor] | tuple[Part[RoIExtractor], ...] = SingleRoIExtractor.spec(),
        bbox_head: Part[BBoxHead] | tuple[Part[BBoxHead], ...] = (_head(1.0), _head(0.5), _head(0.333)),
        mask_roi_extractor: Part[RoIExtractor] | tuple[Part[RoIExtractor], ...] | None = None,
        mask_head: Part[MaskHead] | tuple[Part[MaskHead], ...] | None = None,
        assigner: Part[Assigner] | tuple[Part[Assigner], ...] = (
            _assigner(0.5),
            _assigner(0.6),
            _assigner(0.7),
        ),
        sampler: Part[Sampler] | tuple[Part[Sampler], ...] = RandomSampler.spec(num=512, pos_fraction=0.25),
        add_gt_as_proposals: bool = True,
        pos_weight: Annotated[float, Field(gt=0)] = 1.0,
        postprocess: Part[Postprocess] = NMSPostprocess.spec(nms_pre=None, min_bbox_size=None),
    ) -> None:
        super().__init__()
        if mask_roi_extractor is not None and mask_head is None:
            raise ValueError("mask_roi_extractor needs a mask_head; add one, or leave the extractor out")
        self.num_classes, self.stage_loss_weights = num_classes, stage_loss_weights
        self.add_gt_as_proposals, self.pos_weight = add_gt_as_proposals, pos_weight
        count = len(stage_loss_weights)
        boxes = make_extractors("bbox_roi_extractor", bbox_roi_extractor, count, in_features)
        self.bbox_roi_extractor = nn.ModuleList(boxes)
        self.bbox_head = nn.ModuleList(make_heads("bbox_head", bbox_head, boxes, num_classes))
        self.mask_roi_extractor = self.mask_head = None
        masks = boxes
        if mask_roi_extractor is not None:
            masks = make_extractors("mask_roi_extractor", mask_roi_extractor, count, in_features)
            self.mask_roi_extractor = nn.ModuleList(masks)
        if mask_head is not None:
            self.mask_head = nn.ModuleList(make_heads("mask_head", mask_head, masks, num_classes))
        self.assigner = tuple(make(part) for part in per_stage("assigner", assigner, count))
        self.sampler = tuple(make(part) for part in per_stage("sampler", sampler, count))
        self.postprocess = make(postprocess)
        for part in self.assigner:
            check_assigner(part)

    def loss(
        self, features: tuple[Tensor, ...], proposals: Proposals, targets: Targets, batch: ImageBatch
    ) -> Losses:
        """Terms ``s0.loss_cls``, ``s0.loss_bbox``, ``s0.loss_mask``, ``s1.loss_cls``, ...; metrics likewise.

        Raises:
            DataError: There is a mask head, and objects without masks.
        """
        terms: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        for index, (stage, weight) in enumerate(zip(self.stages, self.stage_loss_weights, strict=True)):
            sample = stage.sample(features, proposals, targets, batch)
            losses, output = stage.loss(features, sample, targets)
            terms |= {f"s{index}.{name}": term * weight for name, term in losses.items()}
            metrics |= {f"s{index}.{name}": metric for name, metric in losses.metrics.items()}
            proposals = _refined(stage, output, sample, batch)
        return Losses(terms, metrics)

    @torch.no_grad()
    def predict(self, features: tuple[Tensor, ...], proposals: Proposals, batch: ImageBatch) -> Detections:
        """See :class:`~detcore.interfaces.RoIHead`."""
        proposals = without_padding(proposals)
        first, *others = stages = self.stages
        outputs = [first.run(features, proposals)]
        _, image = flat(proposals)
        for before, stage in zip(stages, others, strict=False):
            regions, _ = flat(proposals)
            boxes = refine(before.bbox_head, outputs[-1], regions, batch.sizes[image])
            proposals = proposals.replace(boxes=boxes.reshape(proposals.boxes.shape))
            outputs.append(stage.run(features, proposals))
        logits = torch.stack([output.logits for output in outputs]).mean(0)
        averaged = BBoxOutput(logits, outputs[-1].codes)
        found = detect_regions(stages[-1].bbox_head, averaged, proposals, batch, self.postprocess)
        masks = [stage.mask_predictor(features) for stage in stages]
        return predict_masks([predictor for predictor in masks if predictor], found, batch)

    @property
    def stages(self) -> list[Stage]:
        """The parts of each stage as they are now."""
        nothing = [None] * len(self.stage_loss_weights)
        columns = (
            self.bbox_roi_extractor, self.bbox_head, self.assigner, self.sampler,
            self.mask_roi_extractor or nothing, self.mask_head or nothing,
        )  # fmt: skip
        return [
            Stage(
                extractor, bbox_head, assigner, sampler,
                self.num_classes, self.add_gt_as_proposals, self.pos_weight, mask_extractor, mask_head,
            )
            for extractor, bbox_head, assigner, sampler, mask_extractor, mask_head in zip(*columns,
            strict=True)
        ]  # fmt: skip


@torch.no_grad()
def _refined(stage: Stage, output: BBoxOutput, sample: RoISample, batch: ImageBatch) -> Proposals:
    """The sampled regions as the stage moved them; ground truths are left out, they join again."""
    detached = BBoxOutput(output.logits.detach(), output.codes.detach())
    boxes = refine(stage.bbox_head, detached, sample.boxes, batch.sizes[sample.image], sample.labels)
    valid = (sample.real & ~sample.added).reshape(len(batch), -1)
    scores = torch.zeros_like(valid, dtype=boxes.dtype)
    return Proposals(boxes.reshape(*valid.shape, 4), scores, valid)
