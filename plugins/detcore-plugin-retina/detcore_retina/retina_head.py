"""The head of RetinaNet."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from detcore_assigners import MaxIoUAssigner
from detcore_coders import DeltaXYWHBBoxCoder
from detcore_losses import FocalLoss, L1Loss
from detcore_postprocess import NMSPostprocess
from detcore_priors import AnchorGenerator
from detcore_samplers import PseudoSampler
from pydantic import Field
from torch import Tensor, nn

from detcore import targets as building
from detcore.component import Part, make, wired
from detcore.distributed import reduce_mean
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
from detcore.interfaces.sampler import SamplingPredictions
from detcore.layers import ConvNormAct, NormName
from detcore.structures import (
    Assignment,
    DenseOutput,
    Detections,
    FeatureSpec,
    HeadOutput,
    ImageBatch,
    LevelShape,
    Losses,
    Predictions,
    Priors,
    Targets,
)


class RetinaHead(DenseHead):
    """Two small convolutional networks, shared by all levels: one classifies anchors, one regresses their boxes.

    Source: Lin et al., Focal Loss for Dense Object Detection (arXiv:1708.02002). The defaults are its.

    Args:
        in_features: Channels (the same in each level) and strides of the pyramid; supplied by the detector.
        num_classes: K; supplied by the detector.
        feat_channels: Width of the two networks.
        stacked_convs: Their depth, without the predicting layer.
        norm: Normalisation after each of these convolutions; None for none.
        prior_generator: Anchors; gets the pyramid's strides.
        assigner: Which anchor answers for which ground truth.
        sampler: Which of them enter the losses.
        bbox_coder: What the network regresses.
        loss_cls: Loss on class logits; decides their number of channels.
        loss_bbox: Loss on the positives' codes or boxes.
        reg_decoded_bbox: Whether ``loss_bbox`` gets decoded boxes; None means as the loss works. A loss that works
            on codes may be given boxes, not the other way round.
        allowed_border: Anchors that reach further over the image's edge, in pixels, are left out of training; None
            keeps all.
        pos_weight: Weight of positives in the classification loss.
        prior_prob: Probability of each class that the untrained network predicts.
        postprocess: From scores to detections.

    Raises:
        ConfigError: The levels differ in channels or in anchors per cell, or their number is not the generator's.
    """

    #: Names in MMDetection's checkpoints -> names here.
    reference_names: ClassVar[tuple[tuple[str, str], ...]] = ((r"_convs\.(\d+)\.(bn|gn)\.", r"_convs.\1.norm."),)

    def __init__(
        self,
        *,
        in_features: tuple[FeatureSpec, ...] = wired(),
        num_classes: Annotated[int, Field(ge=1)] = wired(),
        feat_channels: Annotated[int, Field(ge=1)] = 256,
        stacked_convs: Annotated[int, Field(ge=0)] = 4,
        norm: NormName | None = None,
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
        self.loss_cls = make(loss_cls)
        self.loss_bbox = make(loss_bbox)
        self.postprocess = make(postprocess)
        self.regresses_boxes = _regresses_boxes(reg_decoded_bbox, self.loss_bbox)
        self.num_anchors = _anchors_per_cell(self.prior_generator, in_features)
        self._make_layers(_channels(in_features), feat_channels, stacked_convs, norm)
        self._init_layers(prior_prob)

    def _make_layers(self, channels: int, width: int, depth: int, norm: NormName | None) -> None:
        widths = [channels] + [width] * depth

        def tower() -> nn.ModuleList:
            return nn.ModuleList(ConvNormAct(widths[i], width, 3, padding=1, norm=norm) for i in range(depth))

        self.cls_convs, self.reg_convs = tower(), tower()
        logits = self.loss_cls.channels(self.num_classes)
        self.retina_cls = nn.Conv2d(widths[-1], self.num_anchors * logits, 3, padding=1)
        self.retina_reg = nn.Conv2d(widths[-1], self.num_anchors * self.bbox_coder.code_size, 3, padding=1)

    def _init_layers(self, prior_prob: float) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.constant_(self.retina_cls.bias, -math.log((1 - prior_prob) / prior_prob))  # type: ignore[arg-type]

    def forward(
        self, features: tuple[Tensor, ...], batch: ImageBatch, targets: Targets | None = None
    ) -> DenseOutput:
        """See :class:`~detcore.interfaces.DenseHead`."""
        logits, codes = zip(*(self._level(feature) for feature in features), strict=True)
        levels = tuple(LevelShape(*feature.shape[-2:]) for feature in features)
        return DenseOutput(levels=levels, logits=torch.cat(logits, 1), codes=torch.cat(codes, 1))

    def _level(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, h w A, C] and codes [B, h w A, D] of one level."""
        cls_feature = reg_feature = feature
        for conv in self.cls_convs:
            cls_feature = conv(cls_feature)
        for conv in self.reg_convs:
            reg_feature = conv(reg_feature)
        logits, codes = self.retina_cls(cls_feature), self.retina_reg(reg_feature)
        return _per_prior(logits, self.num_anchors), _per_prior(codes, self.num_anchors)

    def priors(self, output: HeadOutput, batch: ImageBatch) -> Priors:
        """The anchors of a batch."""
        return self.prior_generator(output.levels, batch)

    def match(self, output: DenseOutput, targets: Targets, batch: ImageBatch) -> Assignment:  # type: ignore[override]
        """See :class:`~detcore.interfaces.DenseHead`."""
        priors = building.usable(self.priors(output, batch), batch, self.allowed_border)
        predictions = None
        if self.assigner.needs & {"logits", "boxes"}:
            predictions = self._predictions(output, priors)
        return self.assigner.assign(priors, targets, predictions, batch)

    @torch.no_grad()
    def _predictions(self, output: DenseOutput, priors: Priors) -> Predictions:
        return Predictions(output.logits.detach(), self.bbox_coder.decode(priors, output.codes.detach()))

    def loss(  # type: ignore[override]
        self, output: DenseOutput, targets: Targets, batch: ImageBatch, assignment: Assignment | None = None
    ) -> Losses:
        """Terms ``loss_cls`` and ``loss_bbox``; see :class:`~detcore.interfaces.DenseHead`."""
        if assignment is None:
            assignment = self.match(output, targets, batch)
        priors = self.priors(output, batch)
        sample = self.sampler.sample(
            assignment, predict=lambda: self._sampling_predictions(output, priors, assignment, targets)
        )
        count = reduce_mean(building.sampled_count(sample, positives_only=not self.sampler.subsamples))
        chosen = building.positives(assignment, sample, targets)
        loss_cls = self._classification_loss(
            output,
            building.class_labels(assignment, sample.positive, targets, self.num_classes),
            building.class_weights(sample, self.pos_weight),
            count,
        )
        return Losses(
            {"loss_cls": loss_cls, "loss_bbox": self._box_loss(output, priors, chosen, count)},
            {"num_positives": sample.positive.sum().float()},
        )

    @torch.no_grad()
    def _sampling_predictions(
        self, output: DenseOutput, priors: Priors, assignment: Assignment, targets: Targets
    ) -> SamplingPredictions:
        """Per-prior losses, for samplers that choose by them."""
        labels = building.class_labels(assignment, assignment.positive, targets, self.num_classes)
        losses = self.loss_cls(output.logits, labels, reduction="none")
        losses = losses.sum(-1) if losses.dim() > labels.dim() else losses
        return SamplingPredictions(losses, output.logits, self._predictions(output, priors).boxes)

    def _classification_loss(self, output: DenseOutput, labels: Tensor, weights: Tensor, count: Tensor) -> Tensor:
        pieces = [(output.logits, labels, weights)]
        if not self.loss_cls.additive:
            sizes = [h * w * self.num_anchors for h, w in output.levels]
            split = (tensor.split(sizes, 1) for tensor in pieces[0])
            pieces = list(zip(*split, strict=True))
        terms = [
            self.loss_cls(logits.flatten(0, 1), target.flatten(), weight=weight.flatten(), avg_factor=count)
            for logits, target, weight in pieces
        ]
        return torch.stack(terms).sum()

    def _box_loss(
        self, output: DenseOutput, priors: Priors, chosen: building.Positives, count: Tensor
    ) -> Tensor:
        codes = chosen.gather(output.codes)
        anchors = priors.gather(chosen.prior, chosen.image)
        weight = chosen.weight
        if self.regresses_boxes:
            pred, target = self.bbox_coder.decode(anchors, codes), chosen.boxes
        else:
            pred, (target, code_weights) = codes, self.bbox_coder.encode(anchors, chosen.boxes)
            if code_weights is not None:
                weight = code_weights if weight is None else code_weights * weight[:, None]
        return self.loss_bbox(pred, target, weight=weight, avg_factor=count)  # type: ignore[no-any-return]

    def predict(self, output: DenseOutput, batch: ImageBatch) -> Detections:  # type: ignore[override]
        """See :class:`~detcore.interfaces.DenseHead`."""
        priors = self.priors(output, batch)

        def decode(prior: Tensor, label: Tensor) -> Tensor:
            codes = output.codes.gather(1, prior[..., None].expand(-1, -1, output.codes.shape[-1]))
            return self.bbox_coder.decode(priors.gather(prior), codes, batch.sizes)

        counts = [h * w * self.num_anchors for h, w in output.levels]
        return self.postprocess(self.loss_cls.scores(output.logits), decode, batch, levels=counts)


def _per_prior(prediction: Tensor, per_cell: int) -> Tensor:
    """[B, A*C, h, w] as [B, h*w*A, C]: cells row-major, the anchors of a cell together."""
    count, channels, height, width = prediction.shape
    values = prediction.permute(0, 2, 3, 1)
    return values.reshape(count, height * width * per_cell, channels // per_cell)


def _channels(in_features: tuple[FeatureSpec, ...]) -> int:
    channels = {feature.channels for feature in in_features}
    if len(channels) != 1:
        raise ValueError(
            f"the head is shared by all levels, so they need the same number of channels; got "
            f"{[f.channels for f in in_features]}; put a neck such as FPN before it"
        )
    return channels.pop()


def _anchors_per_cell(generator: PriorGenerator, in_features: tuple[FeatureSpec, ...]) -> int:
    per_cell = generator.num_per_cell
    if len(per_cell) != len(in_features):
        raise ValueError(f"prior_generator makes priors for {len(per_cell)} levels, the pyramid has {len(in_features)}")
    if len(set(per_cell)) != 1:
        raise ValueError(f"the head is shared by all levels, so they need as many anchors per cell; got {per_cell}")
    return per_cell[0]


def _regresses_boxes(reg_decoded_bbox: bool | None, loss: BoxLoss) -> bool:
    if reg_decoded_bbox is None:
        return loss.space == "boxes"
    if loss.space == "boxes" and not reg_decoded_bbox:
        raise ValueError(f"reg_decoded_bbox should not be false with {type(loss).__name__}, which works on boxes")
    return reg_decoded_bbox
