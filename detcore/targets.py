"""From an assignment to the targets of a loss: what dense heads share.

Box losses run on the positives only, gathered from all images into one list of P rows: of 193,374 priors a
few hundred are positive, and a box loss over all of them costs twenty times as much.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detcore.boxes import EPS, inside_flags
from detcore.distributed import reduce_mean
from detcore.structures import Assignment, ImageBatch, Priors, Sample, Targets


@dataclass(frozen=True)
class Positives:
    """The sampled positives of a batch as one list of P rows.

    Args:
        image: Image of each row.
        prior: Prior of each row.
        boxes: Box of its ground truth, xyxy in pixels.
        labels: Its class.
        weight: Its weight in the sample, or None for 1.
    """

    image: Int[Tensor, "P"]
    prior: Int[Tensor, "P"]
    boxes: Float[Tensor, "P 4"]
    labels: Int[Tensor, "P"]
    weight: Float[Tensor, "P"] | None

    def gather(self, values: Float[Tensor, "B N *S"]) -> Float[Tensor, "P *S"]:
        """The rows of per-prior values that belong to the positives."""
        return values[self.image, self.prior]


def positives(assignment: Assignment, sample: Sample, targets: Targets) -> Positives:
    """Gathers the sampled positives. Their number depends on the data, so it synchronises with the device."""
    image, prior = sample.positive.nonzero(as_tuple=True)
    gt = assignment.gt_index[image, prior]
    weight = None if sample.weight is None else sample.weight[image, prior]
    return Positives(image, prior, targets.boxes[image, gt], targets.labels[image, gt], weight)


def class_labels(
    assignment: Assignment, positive: Bool[Tensor, "B N"], targets: Targets, num_classes: int
) -> Int[Tensor, "B N"]:
    """The class that each prior should predict: its ground truth's where ``positive``, else K, background."""
    labels = targets.labels.gather(1, assignment.gt_index)
    return torch.where(positive, labels, num_classes)


def class_weights(sample: Sample, pos_weight: float = 1.0) -> Float[Tensor, "B N"]:
    """The weight of each prior in the classification loss: 0 where it was not sampled."""
    weight = sample.negative.float() + pos_weight * sample.positive.float()
    return weight if sample.weight is None else weight * sample.weight


def sampled_count(sample: Sample, *, positives_only: bool) -> Float[Tensor, ""]:
    """The number of samples that losses are averaged over; an image counts at least one of each sort.

    The floor per image (rather than per batch) is the reference's: an image without objects adds one.

    Args:
        sample: What was sampled.
        positives_only: Whether negatives are left out, as for losses that take all of them.
    """
    count = sample.positive.sum(1).clamp(min=1)
    if not positives_only:
        count = count + sample.negative.sum(1).clamp(min=1)
    return count.sum().float()


@dataclass(frozen=True)
class DenseTargets:
    """What the losses of a dense head are taken over.

    Args:
        labels: The class that each prior should predict; K is background.
        weights: The weight of each prior in the classification loss.
        positives: The sampled positives.
        count: What losses are averaged over, itself averaged over all processes.
    """

    labels: Int[Tensor, "B N"]
    weights: Float[Tensor, "B N"]
    positives: Positives
    count: Float[Tensor, ""]


def dense_targets(
    assignment: Assignment,
    sample: Sample,
    targets: Targets,
    *,
    num_classes: int,
    pos_weight: float = 1.0,
    subsampled: bool,
) -> DenseTargets:
    """The targets of a dense head.

    Args:
        assignment: Which ground truth each prior answers for.
        sample: Which priors take part.
        targets: Ground truth.
        num_classes: K.
        pos_weight: Weight of positives in the classification loss.
        subsampled: Whether the sampler leaves priors out; then losses are averaged over all that it took,
            else over the positives.
    """
    return DenseTargets(
        labels=class_labels(assignment, sample.positive, targets, num_classes),
        weights=class_weights(sample, pos_weight),
        positives=positives(assignment, sample, targets),
        count=reduce_mean(sampled_count(sample, positives_only=not subsampled)),
    )


def centerness(points: Float[Tensor, "*S 2"], boxes: Float[Tensor, "*S 4"]) -> Float[Tensor, "*S"]:
    """How central points lie in boxes: 1 in the centre, 0 at the edges and outside (FCOS, arXiv:1904.01355).

    The root of (smaller / larger distance to left and right) times (the same to top and bottom).

    Args:
        points: (x, y) in pixels.
        boxes: The box of each point, xyxy in pixels; without extent, its points are at the edge.
    """
    distances = torch.stack((points - boxes[..., :2], boxes[..., 2:] - points)).clamp(min=0)
    smaller, larger = distances.amin(0), distances.amax(0)
    return (smaller / larger.clamp(min=EPS)).prod(-1).sqrt()


def usable(priors: Priors, batch: ImageBatch, allowed_border: float | None) -> Priors:
    """The priors with ``valid`` narrowed to those that hardly reach over the image's edge.

    Args:
        priors: All priors.
        batch: Gives the images' true sizes.
        allowed_border: Pixels by which they may, itself excluded; None leaves every prior.
    """
    if allowed_border is None:
        return priors
    inside = inside_flags(priors.boxes, batch.sizes, allowed_border)
    return priors.replace(valid=inside if priors.valid is None else priors.valid & inside)
