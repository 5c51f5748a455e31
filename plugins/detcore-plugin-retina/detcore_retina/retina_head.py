"""The head of RetinaNet."""

from __future__ import annotations

from typing import Annotated, ClassVar

from detcore_assigners import MaxIoUAssigner
from detcore_coders import DeltaXYWHBBoxCoder
from detcore_losses import FocalLoss, L1Loss
from detcore_postprocess import NMSPostprocess
from detcore_priors import AnchorGenerator
from detcore_samplers import PseudoSampler
from pydantic import Field
from torch import Tensor, nn

from detcore import dense
from detcore.component import Part, make, wired
from detcore.interfaces import (
    Assigner,
    BBoxCoder,
    BoxLoss,
    ClassificationLoss,
    DenseHead,
    Postprocess,
    PriorGenerator,
    Sampler,
)
from detcore.layers import NormName
from detcore.structures import (
    Assignment,
    DenseOutput,
    Detections,
    FeatureSpec,
    HeadOutput,
    ImageBatch,
    Losses,
    Priors,
    Targets,
)


class RetinaHead(DenseHead):
    """Two small networks, shared by all levels: one classifies anchors, one regresses their boxes.

    Source: Lin et al., Focal Loss for Dense Object Detection (arXiv:1708.02002). The defaults are its.

    Args:
        in_features: Channels (the same in each level) and strides of the pyramid; supplied by the detector.
        num_classes: K; supplied by the detector.
        feat_channels: Width of the two networks.
        stacked_convs: Their depth, without the predicting layer.
        norm: Normalisation after each of these convolutions; None for none.
        num_groups: Groups of a "GN".
        prior_generator: Anchors; gets the pyramid's strides.
        assigner: Which anchor answers for which ground truth.
        sampler: Which of them enter the losses.
        bbox_coder: What the network regresses.
        loss_cls: Loss on class logits; decides their number of channels.
        loss_bbox: Loss on the positives' codes or boxes.
        reg_decoded_bbox: Whether ``loss_bbox`` gets decoded boxes; None means as the loss works. A loss that
            works on codes may be given boxes, not the other way round.
        allowed_border: Anchors that reach so far over the image's edge, in pixels, are left out of training;
            None keeps all.
        pos_weight: Weight of positives in the classification loss.
        prior_prob: Probability of each class that the untrained network predicts, with a sigmoid loss.
        postprocess: From scores to detections.

    Raises:
        ConfigError: The levels differ in channels or in anchors per cell, or their number is not that of the
            generator.
    """

    #: Names in MMDetection's checkpoints -> names here.
    reference_names: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"_convs\.(\d+)\.(bn|gn)\.", r"_convs.\1.norm."),
    )

    def __init__(
        self,
        *,
        in_features: tuple[FeatureSpec, ...] = wired(),
        num_classes: Annotated[int, Field(ge=1)] = wired(),
        feat_channels: Annotated[int, Field(ge=1)] = 256,
        stacked_convs: Annotated[int, Field(ge=0)] = 4,
        norm: NormName | None = None,
        num_groups: Annotated[int, Field(ge=1)] = 32,
        prior_generator: Part[PriorGenerator] = AnchorGenerator.spec(
            ratios=(0.5, 1.0, 2.0), octave_base_scale=4, scales_per_octave=3
        ),
        assigner: Part[Assigner] = MaxIoUAssigner.spec(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.0),
        sampler: Part[Sampler] = PseudoSampler.spec(),
        bbox_coder: Part[BBoxCoder] = DeltaXYWHBBoxCoder.spec(),
        loss_cls: Part[ClassificationLoss] = FocalLoss.spec(),
        loss_bbox: Part[BoxLoss] = L1Loss.spec(),
        reg_decoded_bbox: bool | None = None,
        allowed_border: Annotated[float, Field(ge=0)] | None = None,
        pos_weight: Annotated[float, Field(gt=0)] = 1.0,
        prior_prob: Annotated[float, Field(gt=0, lt=1)] = 0.01,
        postprocess: Part[Postprocess] = NMSPostprocess.spec(),
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.allowed_border, self.pos_weight = allowed_border, pos_weight
        self.prior_generator = make(prior_generator, strides=tuple(f.stride for f in in_features))
        self.assigner = make(assigner)
        self.sampler = make(sampler)
        self.bbox_coder = make(bbox_coder)
        self.loss_cls = make(loss_cls, num_classes=num_classes)
        self.loss_bbox = make(loss_bbox)
        self.postprocess = make(postprocess)
        self.compares_boxes = dense.compares_boxes(self.loss_bbox, reg_decoded_bbox)
        self.num_anchors = dense.shared_per_cell(self.prior_generator, in_features)

        channels = dense.shared_channels(in_features)
        self.cls_convs = dense.tower(channels, feat_channels, stacked_convs, norm, num_groups)
        self.reg_convs = dense.tower(channels, feat_channels, stacked_convs, norm, num_groups)
        width = feat_channels if stacked_convs else channels
        logits, codes = self.loss_cls.channels(num_classes), self.bbox_coder.code_size
        self.retina_cls = nn.Conv2d(width, self.num_anchors * logits, 3, padding=1)
        self.retina_reg = nn.Conv2d(width, self.num_anchors * codes, 3, padding=1)
        dense.init_convs(self, self.retina_cls, prior_prob)

    def forward(
        self, features: tuple[Tensor, ...], batch: ImageBatch, targets: Targets | None = None
    ) -> DenseOutput:
        """See :class:`~detcore.interfaces.DenseHead`."""
        logits = [self.retina_cls(self.cls_convs(feature)) for feature in features]
        codes = [self.retina_reg(self.reg_convs(feature)) for feature in features]
        return DenseOutput(
            levels=dense.level_shapes(features),
            logits=dense.per_prior(logits, self.num_anchors),
            codes=dense.per_prior(codes, self.num_anchors),
        )

    def priors(self, output: HeadOutput, batch: ImageBatch) -> Priors:
        """The anchors of a batch."""
        return self.prior_generator(output.levels, batch)

    def match(self, output: DenseOutput, targets: Targets, batch: ImageBatch) -> Assignment:  # type: ignore[override]
        """See :class:`~detcore.interfaces.DenseHead`."""
        priors = self.priors(output, batch)
        return dense.match(
            self.assigner, output, priors, targets, batch, self.bbox_coder, self.allowed_border
        )

    def loss(  # type: ignore[override]
        self, output: DenseOutput, targets: Targets, batch: ImageBatch, assignment: Assignment | None = None
    ) -> Losses:
        """Terms ``loss_cls`` and ``loss_bbox``; see :class:`~detcore.interfaces.DenseHead`."""
        if assignment is None:
            assignment = self.match(output, targets, batch)
        priors = self.priors(output, batch)
        sample, wanted, loss_cls = dense.classify(
            output, priors, targets, assignment,
            sampler=self.sampler, coder=self.bbox_coder, loss_cls=self.loss_cls,
            num_classes=self.num_classes, pos_weight=self.pos_weight,
        )  # fmt: skip
        loss_bbox = dense.box_loss(
            self.loss_bbox, output.codes, priors, wanted.positives, self.bbox_coder,
            wanted.count, on_boxes=self.compares_boxes,
        )  # fmt: skip
        return Losses(
            {"loss_cls": loss_cls, "loss_bbox": loss_bbox},
            {"num_positives": sample.positive.sum().float()},
        )

    def predict(self, output: DenseOutput, batch: ImageBatch) -> Detections:  # type: ignore[override]
        """See :class:`~detcore.interfaces.DenseHead`."""
        scores = self.loss_cls.scores(output.logits)
        return dense.detect(
            self.postprocess, scores, output, self.priors(output, batch), batch, self.bbox_coder
        )
