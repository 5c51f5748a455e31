"""From an assignment to the targets of a loss: what dense heads share.

Box losses run on the positives only, gathered from all images into one list of P rows: of 193,374 priors a few
hundred are positive, and a box loss over all of them costs twenty times as much.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detcore.boxes import inside_flags
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
    """Gathers the sampled positives; their number depends on the data, so this synchronises with the device."""
    image, prior = sample.positive.nonzero(as_tuple=True)
    gt = assignment.gt_index[image, prior]
    weight = None if sample.weight is None else sample.weight[image, prior]
    return Positives(image, prior, targets.boxes[image, gt], targets.labels[image, gt], weight)


def class_labels(
    assignment: Assignment, positive: Bool[Tensor, "B N"], targets: Targets, num_classes: int
) -> Int[Tensor, "B N"]:
    """The class that each prior should predict: its ground truth's where ``positive``, else background (K)."""
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


def usable(priors: Priors, batch: ImageBatch, allowed_border: float | None) -> Priors:
    """The priors with ``valid`` narrowed to those that reach over the image's edge by less than ``allowed_border``.

    Args:
        priors: All priors.
        batch: Gives the images' true sizes.
        allowed_border: In pixels; None leaves every prior.
    """
    if allowed_border is None:
        return priors
    inside = inside_flags(priors.boxes, batch.sizes, allowed_border)
    return priors.replace(valid=inside if priors.valid is None else priors.valid & inside)
