"""The head of ATSS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from detcore_assigners import ATSSAssigner
from detcore_coders import DeltaXYWHBBoxCoder
from detcore_losses import CrossEntropyLoss, FocalLoss, GIoULoss
from detcore_postprocess import NMSPostprocess
from detcore_priors import AnchorGenerator
from detcore_samplers import PseudoSampler
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from detcore import dense
from detcore.component import Part, make, wired
from detcore.distributed import mean_count
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
from detcore.targets import DenseTargets, centerness


@dataclass(frozen=True, kw_only=True)
class ATSSOutput(DenseOutput):
    """A dense output with centerness.

    Args:
        centerness: Logit per prior: how central the prior lies in its object.
    """

    centerness: Float[Tensor, "B N"]


torch.export.register_dataclass(ATSSOutput)


class ATSSHead(DenseHead):
    """Two small networks, shared by all levels: one classifies anchors, one regresses boxes and centerness.

    A positive counts in the box loss as much as it is central, and scores are multiplied by the predicted
    centerness.

    Source: Zhang et al., Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive
    Training Sample Selection (arXiv:1912.02424). The defaults are its.

    Args:
        in_features: Channels (the same in each level) and strides of the pyramid; supplied by the detector.
        num_classes: K; supplied by the detector.
        feat_channels: Width of the two networks.
        stacked_convs: Their depth, without the predicting layers.
        pred_kernel_size: Side of the predicting layers' kernels, in cells; odd.
        norm: Normalisation after each convolution of the two networks; None for none.
        num_groups: Groups of a "GN".
        prior_generator: Anchors; gets the pyramid's strides.
        assigner: Which anchor answers for which ground truth.
        sampler: Which of them enter the losses.
        bbox_coder: What the network regresses.
        loss_cls: Loss on class logits; decides their number of channels.
        loss_bbox: Loss on the positives' boxes or codes, weighted by their true centerness.
        loss_centerness: Loss on the positives' centerness; a sigmoid loss that takes soft targets.
        reg_decoded_bbox: Whether ``loss_bbox`` gets decoded boxes; None means as the loss works. A loss that
            works on codes may be given boxes, not the other way round.
        allowed_border: Anchors that reach so far over the image's edge, in pixels, are left out of training;
            None keeps all.
        pos_weight: Weight of positives in the classification loss.
        prior_prob: Probability of each class that the untrained network predicts, with a sigmoid loss.
        postprocess: From scores to detections.

    Raises:
        ConfigError: The levels differ in channels or in anchors per cell, or their number is not that of the
            generator; an even ``pred_kernel_size``; a ``loss_centerness`` that needs more than one logit.
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
        pred_kernel_size: Annotated[int, Field(ge=1)] = 3,
        norm: NormName | None = "GN",
        num_groups: Annotated[int, Field(ge=1)] = 32,
        prior_generator: Part[PriorGenerator] = AnchorGenerator.spec(
            ratios=(1.0,), octave_base_scale=8, scales_per_octave=1
        ),
        assigner: Part[Assigner] = ATSSAssigner.spec(topk=9),
        sampler: Part[Sampler] = PseudoSampler.spec(),
        bbox_coder: Part[BBoxCoder] = DeltaXYWHBBoxCoder.spec(target_stds=(0.1, 0.1, 0.2, 0.2)),
        loss_cls: Part[ClassificationLoss] = FocalLoss.spec(),
        loss_bbox: Part[BoxLoss] = GIoULoss.spec(loss_weight=2.0),
        loss_centerness: Part[ClassificationLoss] = CrossEntropyLoss.spec(use_sigmoid=True),
        reg_decoded_bbox: bool | None = None,
        allowed_border: Annotated[float, Field(ge=0)] | None = None,
        pos_weight: Annotated[float, Field(gt=0)] = 1.0,
        prior_prob: Annotated[float, Field(gt=0, lt=1)] = 0.01,
        postprocess: Part[Postprocess] = NMSPostprocess.spec(iou_threshold=0.6),
    ) -> None:
        super().__init__()
        if pred_kernel_size % 2 == 0:
            raise ValueError(
                f"pred_kernel_size should be odd, so that maps keep their size; got {pred_kernel_size}"
            )
        self.num_classes = num_classes
        self.allowed_border, self.pos_weight = allowed_border, pos_weight
        self.prior_generator = make(prior_generator, strides=tuple(f.stride for f in in_features))
        self.assigner = make(assigner)
        self.sampler = make(sampler)
        self.bbox_coder = make(bbox_coder)
        self.loss_cls = make(loss_cls, num_classes=num_classes)
        self.loss_bbox = make(loss_bbox)
        self.loss_centerness = make(loss_centerness)
        self.postprocess = make(postprocess)
        self.compares_boxes = dense.compares_boxes(self.loss_bbox, reg_decoded_bbox)
        self.num_anchors = dense.shared_per_cell(self.prior_generator, in_features)
        _check_one_logit(self.loss_centerness)

        channels = dense.shared_channels(in_features)
        self.cls_convs = dense.tower(channels, feat_channels, stacked_convs, norm, num_groups)
        self.reg_convs = dense.tower(channels, feat_channels, stacked_convs, norm, num_groups)
        width = feat_channels if stacked_convs else channels
        self.atss_cls = self._predictor(width, self.loss_cls.channels(num_classes), pred_kernel_size)
        self.atss_reg = self._predictor(width, self.bbox_coder.code_size, pred_kernel_size)
        self.atss_centerness = self._predictor(width, 1, pred_kernel_size)
        self.scales = nn.ModuleList(dense.Scale() for _ in in_features)
        dense.init_convs(self, self.atss_cls, prior_prob)

    def _predictor(self, width: int, channels: int, kernel: int) -> nn.Conv2d:
        return nn.Conv2d(width, self.num_anchors * channels, kernel, padding=kernel // 2)

    def forward(
        self, features: tuple[Tensor, ...], batch: ImageBatch, targets: Targets | None = None
    ) -> ATSSOutput:
        """See :class:`~detcore.interfaces.DenseHead`."""
        logits = [self.atss_cls(self.cls_convs(feature)) for feature in features]
        regressed = [self.reg_convs(feature) for feature in features]
        codes = [scale(self.atss_reg(level)) for scale, level in zip(self.scales, regressed, strict=True)]
        centerness = [self.atss_centerness(level) for level in regressed]
        return ATSSOutput(
            levels=dense.level_shapes(features),
            logits=dense.per_prior(logits, self.num_anchors),
            codes=dense.per_prior(codes, self.num_anchors),
            centerness=dense.per_prior(centerness, self.num_anchors).squeeze(-1),
        )

    def priors(self, output: HeadOutput, batch: ImageBatch) -> Priors:
        """The anchors of a batch."""
        return self.prior_generator(output.levels, batch)

    def match(self, output: ATSSOutput, targets: Targets, batch: ImageBatch) -> Assignment:  # type: ignore[override]
        """See :class:`~detcore.interfaces.DenseHead`."""
        priors = self.priors(output, batch)
        return dense.match(
            self.assigner, output, priors, targets, batch, self.bbox_coder, self.allowed_border
        )

    def loss(  # type: ignore[override]
        self, output: ATSSOutput, targets: Targets, batch: ImageBatch, assignment: Assignment | None = None
    ) -> Losses:
        """``loss_cls``, ``loss_bbox`` and ``loss_centerness``; see :class:`~detcore.interfaces.DenseHead`."""
        if assignment is None:
            assignment = self.match(output, targets, batch)
        priors = self.priors(output, batch)
        sample, wanted, loss_cls = dense.classify(
            output, priors, targets, assignment,
            sampler=self.sampler, coder=self.bbox_coder, loss_cls=self.loss_cls,
            num_classes=self.num_classes, pos_weight=self.pos_weight,
        )  # fmt: skip
        return Losses(
            {"loss_cls": loss_cls, **self._positive_losses(output, priors, wanted)},
            {"num_positives": sample.positive.sum().float()},
        )

    def _positive_losses(self, output: ATSSOutput, priors: Priors, wanted: DenseTargets) -> dict[str, Tensor]:
        chosen = wanted.positives
        central = centerness(priors.gather(chosen.prior, chosen.image).centers, chosen.boxes)
        weight = central if chosen.weight is None else central * chosen.weight
        loss_bbox = dense.box_loss(
            self.loss_bbox, output.codes, priors, chosen, self.bbox_coder,
            mean_count(weight.sum()), on_boxes=self.compares_boxes, weight=weight,
        )  # fmt: skip
        loss_centerness = self.loss_centerness(
            chosen.gather(output.centerness)[:, None],
            central[:, None],
            weight=chosen.weight,
            avg_factor=wanted.count,
        )
        return {"loss_bbox": loss_bbox, "loss_centerness": loss_centerness}

    def predict(self, output: ATSSOutput, batch: ImageBatch) -> Detections:  # type: ignore[override]
        """See :class:`~detcore.interfaces.DenseHead`."""
        factors = self.loss_centerness.scores(output.centerness[..., None]).squeeze(-1)
        scores = self.loss_cls.scores(output.logits)
        return dense.detect(
            self.postprocess, scores, output, self.priors(output, batch), batch, self.bbox_coder, factors
        )


def _check_one_logit(loss: ClassificationLoss) -> None:
    if loss.channels(1) != 1:
        raise ValueError(
            f"loss_centerness should be a sigmoid loss, with one logit; {type(loss).__name__} as it is set "
            f"has {loss.channels(1)}: set use_sigmoid"
        )
