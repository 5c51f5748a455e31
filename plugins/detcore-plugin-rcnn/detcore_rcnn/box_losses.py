"""What box heads share: losses of sampled regions, and regions as a coder sees them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detcore import boxes as geometry
from detcore.distributed import mean_count
from detcore.interfaces import BBoxCoder, BoxLoss, ClassificationLoss
from detcore.interfaces.bbox_head import BBoxOutput, RoISample
from detcore.structures import Losses, Priors


def regions_as_priors(boxes: Float[Tensor, "*S 4"]) -> Priors:
    """Regions as reference boxes; they have no strides, so those are 0."""
    return Priors(boxes, boxes.new_zeros(boxes.shape[-2], 2))


def of_class(
    values: Float[Tensor, "P A *S"], labels: Int[Tensor, "P"], rows: Int[Tensor, "P"] | None = None
) -> Float[Tensor, "P *S"]:
    """What was predicted for one class per row.

    Args:
        values: For each of A classes, or A = 1 where they share it.
        labels: The class of each row.
        rows: Which rows are meant; all in order where None.
    """
    if rows is None:
        rows = torch.arange(len(labels), device=labels.device)
    return values[rows, labels if values.shape[1] > 1 else torch.zeros_like(labels)]


def box_targets(
    output: BBoxOutput, sample: RoISample, rows: Int[Tensor, "P"], coder: BBoxCoder, *, on_boxes: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """What a box loss compares of some positives: predictions, targets, and weights or None for 1.

    Args:
        output: What was predicted for the samples.
        sample: What should have been.
        rows: Which samples, all of them positive.
        coder: Encodes the targets, or decodes the predictions.
        on_boxes: Whether boxes are compared rather than codes.
    """
    own = of_class(output.codes, sample.labels[rows], rows)
    regions, boxes = regions_as_priors(sample.boxes[rows]), sample.gt_boxes[rows]
    if on_boxes:
        return coder.decode(regions, own), boxes, None
    return own, *coder.encode(regions, boxes)


@torch.no_grad()
def region_quality(
    loss: ClassificationLoss, output: BBoxOutput, sample: RoISample, coder: BBoxCoder
) -> dict[str, Float[Tensor, "S"]]:
    """The argument ``quality`` for a loss that asks for it; empty for others.

    It is the IoU of each positive's decoded box with its ground truth, without gradient; 0 for the others.
    """
    if not loss.uses_quality:
        return {}
    rows = sample.positive.nonzero().squeeze(1)
    pred, target, _ = box_targets(output, sample, rows, coder, on_boxes=True)
    quality = pred.new_zeros(len(sample.labels))
    quality[rows] = geometry.aligned_overlap(pred, target).clamp(0, 1)
    return {"quality": quality}


def region_losses(
    output: BBoxOutput,
    sample: RoISample,
    loss_cls: ClassificationLoss,
    loss_bbox: BoxLoss,
    coder: BBoxCoder,
    *,
    on_boxes: bool,
) -> Losses:
    """Terms ``loss_cls`` over all samples and ``loss_bbox`` over the positives.

    The former is averaged over the samples with a weight, the latter over all samples, not over the positives
    (Girshick, Fast R-CNN, arXiv:1504.08083, section 2.3): a batch of few positives should not weigh them
    more.

    Args:
        output: What was predicted for the samples.
        sample: What should have been.
        loss_cls: On logits.
        loss_bbox: On codes or boxes.
        coder: Encodes the targets, or decodes the predictions.
        on_boxes: Whether ``loss_bbox`` gets boxes.
    """
    weighted = mean_count((sample.weight > 0).sum().float())
    real = mean_count(sample.real.sum().float())
    rows = sample.positive.nonzero().squeeze(1)
    pred, target, weight = box_targets(output, sample, rows, coder, on_boxes=on_boxes)
    right = loss_cls.scores(output.logits.detach()[rows]).argmax(-1) == sample.labels[rows]
    quality = region_quality(loss_cls, output, sample, coder)
    classified = loss_cls(output.logits, sample.labels, weight=sample.weight, avg_factor=weighted, **quality)
    return Losses(
        {
            "loss_cls": classified,
            "loss_bbox": loss_bbox(pred, target, weight=weight, avg_factor=real),
        },
        {"pos_acc": right.sum() / max(1, len(rows)), "num_positives": sample.positive.sum().float()},
    )
