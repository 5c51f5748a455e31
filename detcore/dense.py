"""What dense heads share beside targets: pieces of their networks, checks, losses and prediction.

Functions on a head's parts, to be composed. A head that does one of these steps in its own way writes that
step and uses the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detcore import boxes as geometry
from detcore.dense_losses import box_loss as box_loss
from detcore.dense_losses import classification_loss as classification_loss
from detcore.dense_losses import localization_quality as localization_quality
from detcore.interfaces import (
    Assigner,
    BBoxCoder,
    BoxLoss,
    ClassificationLoss,
    Postprocess,
    PriorGenerator,
    Sampler,
)
from detcore.interfaces.sampler import SamplingPredictions
from detcore.layers import Scale as Scale
from detcore.layers import init_convs as init_convs
from detcore.layers import tower as tower
from detcore.structures import (
    Assignment,
    DenseOutput,
    Detections,
    FeatureSpec,
    ImageBatch,
    LevelShape,
    Predictions,
    Priors,
    Sample,
    Targets,
)
from detcore.targets import DenseTargets, class_labels, dense_targets, usable

# ------------------------------------------------------------------------------------ maps of predictions


def level_shapes(features: Sequence[Float[Tensor, "B F h w"]]) -> tuple[LevelShape, ...]:
    """Height and width of each level."""
    return tuple(LevelShape(*feature.shape[-2:]) for feature in features)


def per_prior(maps: Iterable[Float[Tensor, "B AC h w"]], per_cell: int) -> Float[Tensor, "B N C"]:
    """Predictions of all levels, one row per prior, in the order of the priors.

    Args:
        maps: By level, A times C channels: those of a prior together.
        per_cell: A.
    """
    rows = []
    for prediction in maps:
        count, channels, height, width = prediction.shape
        cells = prediction.permute(0, 2, 3, 1)
        rows.append(cells.reshape(count, height * width * per_cell, channels // per_cell))
    return torch.cat(rows, dim=1)


# -------------------------------------------------------------------------------------------------- checks


def shared_channels(in_features: tuple[FeatureSpec, ...]) -> int:
    """The number of channels that all levels have.

    Raises:
        ValueError: They differ, or there is no level.
    """
    channels = {feature.channels for feature in in_features}
    if len(channels) != 1:
        raise ValueError(
            "the head is shared by all levels, so they need the same number of channels; got "
            f"{[f.channels for f in in_features]}; put a neck such as FPN before it"
        )
    return channels.pop()


def shared_per_cell(generator: PriorGenerator, in_features: tuple[FeatureSpec, ...]) -> int:
    """The number of priors in a cell of every level.

    Raises:
        ValueError: It differs between levels, or the generator was made for another number of levels.
    """
    per_cell = generator.num_per_cell
    if len(per_cell) != len(in_features):
        raise ValueError(
            f"prior_generator makes priors for {len(per_cell)} levels, the pyramid has {len(in_features)}; "
            "leave out its strides: the head supplies those of the pyramid"
        )
    if len(set(per_cell)) != 1:
        raise ValueError(
            "the head is shared by all levels, so prior_generator should make as many priors per cell in "
            f"each; got {per_cell}"
        )
    return per_cell[0]


def compares_boxes(loss_bbox: BoxLoss, reg_decoded_bbox: bool | None) -> bool:
    """Whether a box loss gets decoded boxes rather than codes.

    Args:
        loss_bbox: The loss.
        reg_decoded_bbox: What was asked for; None means as the loss works.

    Raises:
        ValueError: A loss that works on boxes should get codes.
    """
    if reg_decoded_bbox is None:
        return loss_bbox.space == "boxes"
    if loss_bbox.space == "boxes" and not reg_decoded_bbox:
        raise ValueError(
            f"reg_decoded_bbox should not be false with {type(loss_bbox).__name__}, which works on boxes; "
            "leave it out"
        )
    return reg_decoded_bbox


# ------------------------------------------------------------------------------------------------ training


@torch.no_grad()
def predictions(output: DenseOutput, priors: Priors, coder: BBoxCoder) -> Predictions:
    """Logits and decoded boxes of all priors, without gradients and not clipped."""
    return Predictions(output.logits.detach(), coder.decode(priors, output.codes.detach()))


def match(
    assigner: Assigner,
    output: DenseOutput,
    priors: Priors,
    targets: Targets,
    batch: ImageBatch,
    coder: BBoxCoder,
    allowed_border: float | None = None,
) -> Assignment:
    """The assigner's answer; boxes are decoded only for an assigner that looks at predictions.

    Args:
        assigner: Which ground truth each prior answers for.
        output: The network's.
        priors: All of them.
        targets: Ground truth.
        batch: The images.
        coder: Decodes the predictions.
        allowed_border: See :func:`~detcore.targets.usable`.
    """
    seen = predictions(output, priors, coder) if assigner.needs & {"logits", "boxes"} else None
    return assigner.assign(usable(priors, batch, allowed_border), targets, seen, batch)


def sample(
    sampler: Sampler,
    assignment: Assignment,
    output: DenseOutput,
    priors: Priors,
    targets: Targets,
    *,
    coder: BBoxCoder,
    loss_cls: ClassificationLoss,
    num_classes: int,
) -> Sample:
    """The sampler's choice; losses and boxes are computed only for a sampler that asks for them.

    Args:
        sampler: Chooses among the assigned priors.
        assignment: What it chooses from.
        output: The network's.
        priors: All of them.
        targets: Ground truth.
        coder: Decodes the predictions.
        loss_cls: The loss by which a sampler may rank.
        num_classes: K.
    """

    @torch.no_grad()
    def predict() -> SamplingPredictions:
        seen = predictions(output, priors, coder)
        labels = class_labels(assignment, assignment.positive, targets, num_classes)
        extra = {}
        if loss_cls.uses_quality:
            gts = targets.boxes.gather(1, assignment.gt_index[..., None].expand(-1, -1, 4))
            extra["quality"] = geometry.aligned_overlap(seen.boxes, gts).clamp(0, 1)
        losses = loss_cls(seen.logits, labels, reduction="none", **extra)
        losses = losses.sum(-1) if losses.dim() > labels.dim() else losses
        return SamplingPredictions(losses, seen.logits, seen.boxes, loss_cls.scores(seen.logits))

    return sampler.sample(assignment, predict=predict)


class Classified(NamedTuple):
    """What :func:`classify` gives.

    Args:
        sample: The sampler's choice.
        wanted: What every prior should have predicted.
        loss: The classification loss.
    """

    sample: Sample
    wanted: DenseTargets
    loss: Float[Tensor, ""]


def classify(
    output: DenseOutput,
    priors: Priors,
    targets: Targets,
    assignment: Assignment,
    *,
    sampler: Sampler,
    coder: BBoxCoder,
    loss_cls: ClassificationLoss,
    num_classes: int,
    pos_weight: float,
) -> Classified:
    """From the assignment to the classification loss: sampling, targets, and the quality where the loss asks.

    Args:
        output: The network's.
        priors: All of them.
        targets: Ground truth.
        assignment: Which ground truth each prior answers for.
        sampler: Chooses among the assigned priors.
        coder: Decodes the predictions, for a sampler or a loss that looks at them.
        loss_cls: The loss.
        num_classes: K.
        pos_weight: Weight of the positives.
    """
    chosen = sample(
        sampler, assignment, output, priors, targets, coder=coder, loss_cls=loss_cls, num_classes=num_classes
    )
    wanted = dense_targets(
        assignment, chosen, targets,
        num_classes=num_classes, pos_weight=pos_weight, subsampled=sampler.subsamples,
    )  # fmt: skip
    quality = localization_quality(loss_cls, output.codes, priors, wanted.positives, coder)
    loss = classification_loss(loss_cls, output.logits, wanted, level_counts(priors), quality)
    return Classified(chosen, wanted, loss)


# ---------------------------------------------------------------------------------------------- prediction


def detect(
    postprocess: Postprocess,
    scores: Float[Tensor, "B N K"],
    output: DenseOutput,
    priors: Priors,
    batch: ImageBatch,
    coder: BBoxCoder,
    factors: Float[Tensor, "B N"] | None = None,
) -> Detections:
    """Detections, with only the chosen candidates decoded.

    Args:
        postprocess: Chooses candidates and suppresses duplicates.
        scores: Probabilities of the classes.
        output: The network's.
        priors: All of them.
        batch: The images; boxes are clipped to their true sizes.
        coder: Decodes.
        factors: Multiplied to the scores after the choice of candidates.
    """

    def decode(prior: Int[Tensor, "B T"], label: Int[Tensor, "B T"]) -> Float[Tensor, "B T 4"]:
        codes = output.codes.gather(1, prior[..., None].expand(-1, -1, output.codes.shape[-1]))
        return coder.decode(priors.gather(prior), codes, batch.sizes)

    return postprocess(scores, decode, batch, levels=level_counts(priors), factors=factors)


def level_counts(priors: Priors) -> list[int]:
    """The number of priors of each level."""
    return [level.count for level in priors.levels]
