"""Wrong networks: backbones, necks, heads, extractors, detectors, and post-processing."""

from typing import Annotated

import torch
from detcore_postprocess import NMSPostprocess
from detcore_rcnn import FCNMaskHead, RPNHead, Shared2FCBBoxHead, SingleRoIExtractor, StandardRoIHead
from detcore_retina import RetinaHead
from pydantic import Field
from torch import nn

from detcore.component import wired
from detcore.detectors import ImagePreprocessor, SingleStageDetector
from detcore.interfaces import Backbone, Block, Neck, SharedHead
from detcore.interfaces.bbox_head import RoISize
from detcore.structures import FeatureSpec, Losses
from detcore.testing import Subject


class Strided(Backbone):
    """Two strided convolutions, done right."""

    def __init__(self, *, width: Annotated[int, Field(ge=1)] = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, 4, 1)
        self.second = nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.out_features = (FeatureSpec(width, 4), FeatureSpec(2 * width, 8))

    def forward(self, pixels):
        first = self.first(pixels)
        return first, self.second(first.relu())


class LiesAboutStrides(Strided):
    """Says 16 where it is 8."""

    def __init__(self, *, width: int = 4) -> None:
        super().__init__(width=width)
        self.out_features = (FeatureSpec(width, 4), FeatureSpec(2 * width, 16))


class LiesAboutChannels(Strided):
    """Says more than there are."""

    def __init__(self, *, width: int = 4) -> None:
        super().__init__(width=width)
        self.out_features = (FeatureSpec(width, 4), FeatureSpec(3 * width, 8))


class LosesTheRemainder(Strided):
    """No padding: rows at the end are lost where the size is no multiple of the stride."""

    def __init__(self, *, width: int = 4) -> None:
        super().__init__(width=width)
        self.first = nn.Conv2d(3, width, 4, 4)


class HasIdleParameters(Strided):
    """A layer that nothing goes through."""

    def __init__(self, *, width: int = 4) -> None:
        super().__init__(width=width)
        self.idle = nn.Linear(2, 2)


class NormalisesOverTheBatch(Strided):
    """Statistics of the batch in evaluation mode too."""

    def forward(self, pixels):
        first, second = super().forward(pixels)
        return first, second - second.mean(0, keepdim=True)


class CountsInEvaluation(Strided):
    """Counts its calls whatever the mode."""

    def __init__(self, *, width: int = 4) -> None:
        super().__init__(width=width)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, pixels):
        self.calls += 1
        return super().forward(pixels)


class NormalisesInPlace(Strided):
    """Writes to the images."""

    def forward(self, pixels):
        with torch.no_grad():
            pixels.clamp_(-3, 2)
        return super().forward(pixels)


class DividesByTheDeviation(Strided):
    """NaN for images of one colour."""

    def forward(self, pixels):
        first, second = super().forward(pixels / pixels.std((1, 2, 3), keepdim=True))
        return first, second


class ComputesInFloat32(Strided):
    """Whatever it is given."""

    def forward(self, pixels):
        first, second = super().forward(pixels)
        return first.float(), second.float()


class ForgetsALayer(Strided):
    """When it is asked for its layers."""

    def depth_layers(self):
        return super().depth_layers()[1:]


class Lateral(Neck):
    """One convolution per level, done right."""

    def __init__(self, *, in_features: tuple[FeatureSpec, ...] = wired(), out_channels: int = 6) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(f.channels, out_channels, 1) for f in in_features)
        self.out_features = tuple(FeatureSpec(out_channels, f.stride) for f in in_features)

    def forward(self, features):
        return tuple(conv(feature) for conv, feature in zip(self.convs, features, strict=True))


class DropsALevel(Lateral):
    """One fewer than it says."""

    def forward(self, features):
        maps = super().forward(features)
        return (*maps[:-2], maps[-2] + maps[-1].mean((1, 2, 3), keepdim=True))


class AddsInPlace(Lateral):
    """Writes to the features of the backbone."""

    def forward(self, features):
        with torch.no_grad():
            features[0].add_(features[1].mean())
        return super().forward(features)


class ReturnsAList(Lateral):
    """A list in place of a tuple."""

    def forward(self, features):
        return list(super().forward(features))


class Widen(SharedHead):
    """A convolution, done right."""

    def __init__(self, *, in_channels: int = wired(), roi_feat_size: RoISize = wired()) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 6, 1)
        self.out_channels, self.output_size = 6, roi_feat_size

    def forward(self, features):
        return self.conv(features)


class LiesAboutItsSize(Widen):
    """Says another size."""

    def __init__(self, *, in_channels: int = wired(), roi_feat_size: RoISize = wired()) -> None:
        super().__init__(in_channels=in_channels, roi_feat_size=roi_feat_size)
        self.output_size = (roi_feat_size[0] + 1, roi_feat_size[1])


# ------------------------------------------------------------------------------------------- dense heads


class _Head(RetinaHead):
    """A narrow one."""

    def __init__(self, *, in_features: tuple[FeatureSpec, ...] = wired(), num_classes: int = wired()) -> None:
        super().__init__(in_features=in_features, num_classes=num_classes, feat_channels=4, stacked_convs=1)


class LearnsNothingWithoutPositives(_Head):
    """Leaves the box loss out where there is no positive."""

    def loss(self, output, targets, batch, assignment=None):
        losses = super().loss(output, targets, batch, assignment)
        if losses.metrics["num_positives"] == 0:
            return Losses({"loss_cls": losses["loss_cls"]}, losses.metrics)
        return losses


class DetectsOutsideOfTheImage(_Head):
    """Boxes reach beyond the image."""

    def predict(self, output, batch):
        found = super().predict(output, batch)
        return found.replace(boxes=torch.where(found.valid[..., None], found.boxes + 40, 0))


class RanksOverTheBatch(_Head):
    """An image's scores depend on the others."""

    def predict(self, output, batch):
        found = super().predict(output, batch)
        return found.replace(scores=found.scores / (1 + found.scores.sum()))


class CountsThePadding(_Head):
    """Divides the loss by the number of rows."""

    def loss(self, output, targets, batch, assignment=None):
        losses = super().loss(output, targets, batch, assignment)
        return Losses({name: loss / targets.valid.shape[1] for name, loss in losses.items()}, losses.metrics)


class IgnoresTheAssignment(_Head):
    """Fails where one is given."""

    def loss(self, output, targets, batch, assignment=None):
        if assignment is not None:
            assignment = assignment.replace(state=torch.zeros_like(assignment.state))
        return super().loss(output, targets, batch, assignment)


class LossesAreVectors(_Head):
    """One per image."""

    def loss(self, output, targets, batch, assignment=None):
        losses = super().loss(output, targets, batch, assignment)
        losses.metrics["each"] = torch.ones(2)
        losses["loss_cls"] = losses["loss_cls"].repeat(2)
        return losses


class LearnsNothing(_Head):
    """The loss does not look at the objects."""

    def loss(self, output, targets, batch, assignment=None):
        return Losses({"loss": output.logits.square().mean() + output.codes.square().mean()})


class _Proposals(RPNHead):
    """A narrow one."""

    def __init__(
        self, *, in_features: tuple[FeatureSpec, ...] = wired(), num_classes: int = wired(1)
    ) -> None:
        super().__init__(in_features=in_features, num_classes=num_classes, feat_channels=4)


class ProposesWithGradients(_Proposals):
    """Proposals that are not cut off."""

    def propose(self, output, batch):
        found = super().propose(output, batch)
        return found.replace(scores=found.scores + 0 * output.logits.sum())


# --------------------------------------------------------------------------------------------- second stage


class LooksAtTheFirstImage(SingleRoIExtractor):
    """Every region is in the first image."""

    def forward(self, features, boxes, image):
        return super().forward(features, boxes, torch.zeros_like(image))


class IsNotConnectedWithoutRegions(SingleRoIExtractor):
    """Zeros from nowhere."""

    def forward(self, features, boxes, image):
        if not len(boxes):
            return torch.zeros(0, self.out_channels, *self.output_size)
        return super().forward(features, boxes, image)


class _BoxHead(Shared2FCBBoxHead):
    """A narrow one."""

    def __init__(
        self, *, in_channels: int = wired(), roi_feat_size: RoISize = wired(), num_classes: int = wired()
    ) -> None:
        super().__init__(
            in_channels=in_channels, roi_feat_size=roi_feat_size, num_classes=num_classes, fc_out_channels=8
        )


class LearnsNothingWithoutRows(_BoxHead):
    """A constant where there is no row."""

    def loss(self, output, sample):
        if not len(sample.boxes):
            return Losses({"loss_cls": torch.zeros(())})
        return super().loss(output, sample)


class ScoresTheBackground(_BoxHead):
    """K + 1 scores."""

    def scores(self, output):
        return output.logits.softmax(-1)


class _MaskHead(FCNMaskHead):
    """A narrow one."""

    def __init__(
        self, *, in_channels: int = wired(), roi_feat_size: RoISize = wired(), num_classes: int = wired()
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            roi_feat_size=roi_feat_size,
            num_classes=num_classes,
            num_convs=1,
            conv_out_channels=4,
        )


class MasksAreLogits(_MaskHead):
    """No activation."""

    def masks(self, logits, labels):
        return logits[torch.arange(len(logits)), labels]


class _SecondStage(StandardRoIHead):
    """A narrow one."""

    def __init__(self, *, in_features: tuple[FeatureSpec, ...] = wired(), num_classes: int = wired()) -> None:
        super().__init__(
            in_features=in_features,
            num_classes=num_classes,
            bbox_head=Shared2FCBBoxHead.spec(fc_out_channels=8),
        )


class DetectsPadding(_SecondStage):
    """Proposals of padding are as good as others."""

    def predict(self, features, proposals, batch):
        every = torch.ones_like(proposals.valid)
        boxes = torch.where(proposals.valid[..., None], proposals.boxes, torch.tensor([1.0, 2.0, 30.0, 20.0]))
        return super().predict(features, proposals.replace(valid=every, boxes=boxes), batch)


# ---------------------------------------------------------------------------------- post-processing, whole


class ReturnsInvertedBoxes(NMSPostprocess):
    """x2 before x1."""

    def __call__(self, scores, decode, batch, **options):
        found = super().__call__(scores, decode, batch, **options)
        return found.replace(boxes=found.boxes.roll(2, -1))


class LeavesGarbageInThePadding(NMSPostprocess):
    """Padded rows are not cleared."""

    def __call__(self, scores, decode, batch, **options):
        found = super().__call__(scores, decode, batch, **options)
        return found.replace(boxes=torch.where(found.valid[..., None], found.boxes, 5.0))


class ForgetsToSort(NMSPostprocess):
    """Detections in any order."""

    def __call__(self, scores, decode, batch, **options):
        found = super().__call__(scores, decode, batch, **options)
        swapped = found.scores.clone()
        swapped[:, [0, 1]] = torch.where(found.valid[:, 1:2], swapped[:, [1, 0]], swapped[:, [0, 1]])
        return found.replace(scores=swapped)


class TakesInvalidCandidates(NMSPostprocess):
    """Does not look at ``valid``."""

    def __call__(self, scores, decode, batch, *, levels=(), factors=None, valid=None):
        return super().__call__(scores, decode, batch, levels=levels, factors=factors)


class IgnoresFactors(NMSPostprocess):
    """Does not look at ``factors``."""

    def __call__(self, scores, decode, batch, *, levels=(), factors=None, valid=None):
        return super().__call__(scores, decode, batch, levels=levels, valid=valid)


class SuppressesAcrossImages(NMSPostprocess):
    """Only the best image has detections."""

    def __call__(self, scores, decode, batch, **options):
        found = super().__call__(scores, decode, batch, **options)
        return found.replace(scores=found.scores / (1 + found.scores.sum()))


class _Detector(SingleStageDetector):
    """A tiny one."""

    def __init__(self, *, num_classes: int = wired()) -> None:
        super().__init__(
            num_classes=num_classes,
            backbone=Strided(),
            neck=Lateral.spec(),
            head=RetinaHead.spec(feat_channels=4, stacked_convs=1),
        )


class DetectsInTraining(_Detector):
    """The mode does not matter."""

    def forward(self, images, targets=None):
        return super().forward(images, targets) if targets is None else self.predict(self.preprocess(images))


class PadsAtTheTop(ImagePreprocessor):
    """Images lie at the bottom right."""

    def forward(self, images, geometry=None):
        batch = super().forward(images, geometry)
        return batch.replace(pixels=batch.pixels.flip(-1))


class Gate(Block):
    """A learned factor per channel, done right."""

    def __init__(self, *, in_channels: int = wired()) -> None:
        super().__init__()
        self.out_channels = in_channels
        self.factor = nn.Parameter(torch.ones(in_channels, 1, 1))

    def forward(self, x):
        return x * self.factor


class LosesACell(Gate):
    """Odd widths come back one cell narrower."""

    def forward(self, x):
        return super().forward(x)[..., : max(1, x.shape[-1] // 2 * 2 - 2)]


class GatesByTheBatch(Gate):
    """Attention over the images of a batch."""

    def forward(self, x):
        return super().forward(x) * x.mean((0, 2, 3), keepdim=True).sigmoid()


class GatesInPlace(Gate):
    """Writes into the features that another branch still needs."""

    def forward(self, x):
        return x.mul_(2.0) * self.factor


class DividesByTheLargest(Gate):
    """NaN where all features are zero."""

    def forward(self, x):
        return super().forward(x) / x.abs().amax((1, 2, 3), keepdim=True)


SOUND = [
    Gate,
    Strided,
    Lateral,
    Widen,
    _Head,
    Subject(_Proposals.spec(), {"num_classes": 1}),
    _BoxHead,
    _MaskHead,
    NMSPostprocess,
]
MUTANTS = [
    (LiesAboutStrides, {"backbone_out_features_are_true"}, set()),
    (LiesAboutChannels, {"backbone_out_features_are_true"}, set()),
    (LosesTheRemainder, {"backbone_out_features_are_true"}, set()),
    (HasIdleParameters, {"backbone_parameters_get_gradients"}, {"backbone_takes_autocast"}),
    (NormalisesOverTheBatch, {"backbone_images_are_independent"}, set()),
    (CountsInEvaluation, {"backbone_evaluation_changes_nothing"}, set()),
    (NormalisesInPlace, {"backbone_leaves_its_arguments"}, set()),
    (DividesByTheDeviation, {"backbone_features_are_finite"}, set()),
    (ComputesInFloat32, {"backbone_keeps_float64"}, set()),
    (ForgetsALayer, {"backbone_layers_have_every_parameter"}, set()),
    (DropsALevel, {"neck_out_features_are_true"}, set()),
    (AddsInPlace, {"neck_leaves_its_arguments"}, {"neck_images_are_independent"}),
    (ReturnsAList, {"neck_out_features_are_true"}, set()),
    (LosesACell, {"block_sizes_are_true"}, set()),
    (GatesByTheBatch, {"block_images_are_independent"}, set()),
    (GatesInPlace, {"block_leaves_its_arguments"}, {"block_images_are_independent"}),
    (DividesByTheLargest, {"block_sizes_are_true"}, set()),
    (LiesAboutItsSize, {"shared_head_sizes_are_true"}, set()),
    (LearnsNothingWithoutPositives, {"dense_head_parameters_get_gradients"}, {"dense_head_takes_autocast"}),
    (DetectsOutsideOfTheImage, {"dense_head_detections_are_well_formed"}, {"dense_head_takes_one_class"}),
    (RanksOverTheBatch, {"dense_head_detections_are_independent"}, set()),
    (CountsThePadding, {"dense_head_loss_ignores_padding"}, set()),
    (IgnoresTheAssignment, {"dense_head_takes_an_assignment"}, set()),
    (
        LossesAreVectors,
        {"dense_head_losses_are_scalars"},
        {
            "dense_head_parameters_get_gradients",
            "dense_head_takes_autocast",
            "dense_head_learns_from_objects",
        },
    ),
    (LearnsNothing, {"dense_head_learns_from_objects"}, set()),
    (Subject(ProposesWithGradients.spec(), {"num_classes": 1}), {"proposals_are_well_formed"}, set()),
    (
        LooksAtTheFirstImage,
        {"roi_extractor_images_are_independent"},
        set(),
    ),
    (IsNotConnectedWithoutRegions, {"roi_extractor_is_connected"}, set()),
    (LearnsNothingWithoutRows, {"bbox_head_parameters_get_gradients"}, set()),
    (ScoresTheBackground, {"bbox_head_output_is_well_formed"}, set()),
    (MasksAreLogits, {"mask_head_output_is_well_formed"}, set()),
    (DetectsPadding, {"roi_head_detections_ignore_padding"}, {"roi_head_detections_are_well_formed"}),
    (
        ReturnsInvertedBoxes,
        {"postprocess_result_is_well_formed"},
        {"postprocess_takes_half_precision", "postprocess_finds_the_one"},
    ),
    (
        LeavesGarbageInThePadding,
        {"postprocess_result_is_well_formed"},
        {"postprocess_takes_half_precision"},
    ),
    (ForgetsToSort, {"postprocess_result_is_well_formed"}, {"postprocess_takes_half_precision"}),
    (TakesInvalidCandidates, {"postprocess_leaves_invalid_priors_out"}, set()),
    (IgnoresFactors, {"postprocess_factors_lower_scores"}, set()),
    (SuppressesAcrossImages, {"postprocess_images_are_independent"}, set()),
    (DetectsInTraining, {"detector_modes"}, {"detector_parameters_get_gradients"}),
    (PadsAtTheTop, {"preprocessor_pads_at_the_end"}, set()),
]
