"""Prime sample attention: weights of positives by their importance, and a loss that ties classes to boxes.

Functions on the P sampled regions of a batch, with masks rather than lists of positives. From Cao et al., "Prime
Sample Attention in Object Detection" (arXiv:1904.04821). The part that is for negatives is a sampler,
``ScoreHLRSampler`` of detcore-plugin-samplers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from detcore_samplers import rank_in_group
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detcore.boxes import aligned_overlap
from detcore.distributed import mean_count
from detcore.interfaces.bbox_head import BBoxOutput, RoISample
from detcore.structures import Losses
from detcore_rcnn.box_losses import box_targets, of_class
from detcore_rcnn.conv_fc_bbox_head import ConvFCBBoxHead


def isr_p(
    ious: Float[Tensor, "P"],
    losses: Float[Tensor, "P"],
    weight: Float[Tensor, "P"],
    positive: Bool[Tensor, "P"],
    labels: Int[Tensor, "P"],
    objects: Int[Tensor, "P"],
    *,
    k: float = 2.0,
    bias: float = 0.0,
) -> Float[Tensor, "P"]:
    """Weights by which the positives that are localised best count most (ISR-P, section 4.2).

    Positives are ranked within their class: by the place that their IoU has among the positives of the same
    object first, by the IoU second (equal ones: the row that comes first). With R the rank and L the number of
    positives of the most frequent class, a weight w becomes (bias + (1 - bias) * w * (L - R) / L)^k. All of them are
    then scaled so that the summed loss of the positives stays what it was.

    Args:
        ious: Overlap of each region's predicted box with the box that it should be.
        losses: Classification loss of each row.
        weight: Weight of each row so far.
        positive: Which rows answer for an object.
        labels: The class of each row; any number where not positive.
        objects: A number for the object of each row, unique in the batch.
        k: Power of the weights.
        bias: Smallest weight before the power.
    """
    if not len(ious):
        return weight
    best = ious.argsort(descending=True, stable=True)
    place = _ranks(objects.masked_fill(~positive, -1), best)
    by_place = best[place[best].argsort(stable=True)]
    rank = _ranks(labels.masked_fill(~positive, -1), by_place)
    # as many rows as the most frequent class has: one more than the highest rank
    most = rank.masked_fill(~positive, -1).max() + 1
    linear = weight * (most - rank) / most.clamp(min=1)
    new = (bias + (1 - bias) * torch.where(positive, linear, 1)).pow(k)
    before = (losses * weight).masked_fill(~positive, 0).sum()
    after = (losses * new).masked_fill(~positive, 0).sum()
    ratio = torch.where(after > 0, before / torch.where(after > 0, after, 1), 1)
    return torch.where(positive, new * ratio, weight)


def carl_weights(
    scores: Float[Tensor, "P"], positive: Bool[Tensor, "P"], *, k: float = 1.0, bias: float = 0.2
) -> Float[Tensor, "P"]:
    """Weights of box losses by which boxes teach the scores (CARL, section 4.3): their gradients flow.

    The weight of a positive is (bias + (1 - bias) * score)^k, scaled so that the mean over the positives is 1; that of
    any other row 0.

    Args:
        scores: Probability of each row's own class.
        positive: Which rows answer for an object.
        k: Power of the weights.
        bias: Smallest weight before the power.
    """
    # a score of 1 stands in where there is no positive: the power has no infinite gradient there
    plain = (bias + (1 - bias) * torch.where(positive, scores, 1)).pow(k)
    weight = torch.where(positive, plain, 0)
    total = weight.sum()
    return weight * positive.sum() / torch.where(total > 0, total, 1)


def _ranks(group: Int[Tensor, "P"], order: Int[Tensor, "P"]) -> Int[Tensor, "P"]:
    return rank_in_group(group[None], order[None])[0][0]


@dataclass(frozen=True)
class PrimeAttention:
    """What is done with the samples of a box head.

    Args:
        isr: Power and bias of the weights of positives, or None.
        carl: Power and bias of the weights of box losses, or None.
    """

    isr: tuple[float, float] | None
    carl: tuple[float, float] | None

    @torch.no_grad()
    def weigh(self, head: ConvFCBBoxHead, output: BBoxOutput, sample: RoISample) -> RoISample:
        """The sample with its positives weighed by :func:`isr_p`."""
        if self.isr is None or not len(sample.labels):
            return sample
        labels = sample.labels.where(sample.positive, 0)
        boxes = head.decode(of_class(output.codes, labels), sample.boxes)
        weight = isr_p(
            aligned_overlap(boxes, sample.gt_boxes),
            head.class_losses(output, sample.labels),
            sample.weight,
            sample.positive,
            labels,
            sample.image * (sample.gt_index.max() + 1) + sample.gt_index,
            k=self.isr[0],
            bias=self.isr[1],
        )
        return replace(sample, weight=weight)

    def loss(self, head: ConvFCBBoxHead, output: BBoxOutput, sample: RoISample) -> Losses:
        """The term ``loss_carl``: box losses weighed by :func:`carl_weights`, averaged over all samples."""
        if self.carl is None:
            return Losses({})
        labels = sample.labels.where(sample.positive, 0)
        scores = of_class(head.scores(output), labels)
        weights = carl_weights(scores, sample.positive, k=self.carl[0], bias=self.carl[1])
        rows = sample.positive.nonzero().squeeze(1)
        pred, target, own = box_targets(output, sample, rows, head.bbox_coder, on_boxes=head.compares_boxes)
        losses = head.loss_bbox(pred, target, weight=own, reduction="none")
        # losses on codes give one number per code
        losses = losses.sum(-1) if losses.dim() > 1 else losses
        real = mean_count(sample.real.sum().float())
        return Losses({"loss_carl": (losses * weights[rows]).sum() / real})
