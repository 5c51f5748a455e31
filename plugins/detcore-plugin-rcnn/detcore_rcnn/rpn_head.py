"""The region proposal network."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from detcore_assigners import MaxIoUAssigner
from detcore_coders import DeltaXYWHBBoxCoder
from detcore_losses import CrossEntropyLoss, L1Loss
from detcore_priors import AnchorGenerator
from detcore_samplers import RandomSampler
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from detcore import dense
from detcore.component import Part, make, wired
from detcore.interfaces import (
    Assigner,
    BBoxCoder,
    BoxLoss,
    ClassificationLoss,
    Postprocess,
    PriorGenerator,
    ProposalHead,
    Sampler,
)
from detcore.structures import (
    Assignment,
    DenseOutput,
    Detections,
    FeatureSpec,
    HeadOutput,
    ImageBatch,
    Losses,
    Priors,
    Proposals,
    Targets,
)
from detcore_rcnn.level_nms import LevelNMSPostprocess


class RPNHead(ProposalHead):
    """Tells objects from background at every anchor, and refines the anchor: proposals for a second stage.

    Source: Ren et al., Faster R-CNN (arXiv:1506.01497); on a pyramid: Lin et al. (arXiv:1612.03144), whose
    settings are the defaults. As a detector of its own, it finds objects without a class (label 0).

    Args:
        in_features: Channels (the same in each level) and strides of the pyramid; supplied by the detector.
        num_classes: Supplied by the detector. It makes no difference: all objects are one class here.
        feat_channels: Width of the convolutions.
        num_convs: Their number, without the predicting layers.
        prior_generator: Anchors; gets the pyramid's strides.
        assigner: Which anchor answers for which ground truth.
        sampler: Which of them enter the losses.
        bbox_coder: What the network regresses.
        loss_cls: Loss on objectness.
        loss_bbox: Loss on the positives' codes or boxes.
        reg_decoded_bbox: Whether ``loss_bbox`` gets decoded boxes; None means as the loss works.
        allowed_border: Anchors that reach further over the image's edge, in pixels, are left out of training;
            None keeps all.
        pos_weight: Weight of positives in the classification loss.
        train_postprocess: From scores to the proposals that a second stage is trained on.
        postprocess: From scores to proposals in evaluation mode, and to the detections of ``predict``.

    Raises:
        ConfigError: The levels differ in channels or in anchors per cell, or their number is not the
            generator's.
    """

    #: Names in MMDetection's checkpoints -> names here.
    reference_names: ClassVar[tuple[tuple[str, str], ...]] = ()

    def __init__(
        self,
        *,
        in_features: tuple[FeatureSpec, ...] = wired(),
        num_classes: Annotated[int, Field(ge=1)] = wired(1),
        feat_channels: Annotated[int, Field(ge=1)] = 256,
        num_convs: Annotated[int, Field(ge=1)] = 1,
        prior_generator: Part[PriorGenerator] = AnchorGenerator.spec(ratios=(0.5, 1.0, 2.0), scales=(8.0,)),
        assigner: Part[Assigner] = MaxIoUAssigner.spec(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3),
        sampler: Part[Sampler] = RandomSampler.spec(num=256, pos_fraction=0.5),
        bbox_coder: Part[BBoxCoder] = DeltaXYWHBBoxCoder.spec(),
        loss_cls: Part[ClassificationLoss] = CrossEntropyLoss.spec(use_sigmoid=True),
        loss_bbox: Part[BoxLoss] = L1Loss.spec(),
        reg_decoded_bbox: bool | None = None,
        allowed_border: Annotated[float, Field(ge=0)] | None = None,
        pos_weight: Annotated[float, Field(gt=0)] = 1.0,
        train_postprocess: Part[Postprocess] = LevelNMSPostprocess.spec(nms_pre=2000),
        postprocess: Part[Postprocess] = LevelNMSPostprocess.spec(),
    ) -> None:
        super().__init__()
        self.allowed_border, self.pos_weight = allowed_border, pos_weight
        self.prior_generator = make(prior_generator, strides=tuple(f.stride for f in in_features))
        self.assigner = make(assigner)
        self.sampler = make(sampler)
        self.bbox_coder = make(bbox_coder)
        self.loss_cls = make(loss_cls, num_classes=1)
        self.loss_bbox = make(loss_bbox)
        self.train_postprocess = make(train_postprocess)
        self.postprocess = make(postprocess)
        self.compares_boxes = dense.compares_boxes(self.loss_bbox, reg_decoded_bbox)
        self.num_anchors = dense.shared_per_cell(self.prior_generator, in_features)

        channels = dense.shared_channels(in_features)
        self.rpn_conv = (
            nn.Conv2d(channels, feat_channels, 3, padding=1)
            if num_convs == 1
            else dense.tower(channels, feat_channels, num_convs)
        )
        self.rpn_cls = nn.Conv2d(feat_channels, self.num_anchors * self.loss_cls.channels(1), 1)
        self.rpn_reg = nn.Conv2d(feat_channels, self.num_anchors * self.bbox_coder.code_size, 1)
        dense.init_convs(self, self.rpn_cls, prior_prob=0.5)

    def forward(
        self, features: tuple[Tensor, ...], batch: ImageBatch, targets: Targets | None = None
    ) -> DenseOutput:
        """See :class:`~detcore.interfaces.DenseHead`."""
        hidden = [F.relu(self.rpn_conv(feature)) for feature in features]
        return DenseOutput(
            levels=dense.level_shapes(features),
            logits=dense.per_prior([self.rpn_cls(x) for x in hidden], self.num_anchors),
            codes=dense.per_prior([self.rpn_reg(x) for x in hidden], self.num_anchors),
        )

    def priors(self, output: HeadOutput, batch: ImageBatch) -> Priors:
        """The anchors of a batch."""
        return self.prior_generator(output.levels, batch)

    def match(self, output: DenseOutput, targets: Targets, batch: ImageBatch) -> Assignment:  # type: ignore[override]
        """See :class:`~detcore.interfaces.DenseHead`; the objects' classes are not looked at."""
        return dense.match(
            self.assigner, output, self.priors(output, batch), _one_class(targets), batch,
            self.bbox_coder, self.allowed_border,
        )  # fmt: skip

    def loss(  # type: ignore[override]
        self, output: DenseOutput, targets: Targets, batch: ImageBatch, assignment: Assignment | None = None
    ) -> Losses:
        """Terms ``loss_rpn_cls`` and ``loss_rpn_bbox``; see :class:`~detcore.interfaces.DenseHead`."""
        targets = _one_class(targets)
        if assignment is None:
            assignment = self.match(output, targets, batch)
        priors = self.priors(output, batch)
        sample, wanted, loss_cls = dense.classify(
            output, priors, targets, assignment,
            sampler=self.sampler, coder=self.bbox_coder, loss_cls=self.loss_cls,
            num_classes=1, pos_weight=self.pos_weight,
        )  # fmt: skip
        loss_bbox = dense.box_loss(
            self.loss_bbox, output.codes, priors, wanted.positives, self.bbox_coder,
            wanted.count, on_boxes=self.compares_boxes,
        )  # fmt: skip
        return Losses(
            {"loss_rpn_cls": loss_cls, "loss_rpn_bbox": loss_bbox},
            {"rpn_num_positives": sample.positive.sum().float()},
        )

    @torch.no_grad()
    def propose(self, output: DenseOutput, batch: ImageBatch) -> Proposals:  # type: ignore[override]
        """See :class:`~detcore.interfaces.ProposalHead`."""
        found = self._detect(output, batch, self.train_postprocess if self.training else self.postprocess)
        return Proposals(found.boxes, found.scores, found.valid)

    def predict(self, output: DenseOutput, batch: ImageBatch) -> Detections:  # type: ignore[override]
        """The proposals as detections of class 0; see :class:`~detcore.interfaces.DenseHead`."""
        return self._detect(output, batch, self.postprocess)

    def _detect(self, output: DenseOutput, batch: ImageBatch, postprocess: Postprocess) -> Detections:
        scores = self.loss_cls.scores(output.logits)
        return dense.detect(postprocess, scores, output, self.priors(output, batch), batch, self.bbox_coder)


def _one_class(targets: Targets) -> Targets:
    return targets.replace(labels=torch.zeros_like(targets.labels))
