"""From proposals to the samples that a second stage learns from: assignment, ground truths, choice."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detcore.interfaces import Assigner, Sampler
from detcore.interfaces.bbox_head import RoISample
from detcore.interfaces.sampler import SamplingPredictions
from detcore.structures import IGNORED, POSITIVE, Assignment, ImageBatch, Proposals, Sample, Targets
from detcore.targets import class_labels, class_weights
from detcore_rcnn.box_losses import regions_as_priors

#: Gives losses, logits and boxes of regions [B, T] under an assignment of them.
RegionPredictor = Callable[[Proposals, Assignment], SamplingPredictions]


def check_assigner(assigner: Assigner) -> None:
    """Refuses an assigner that reads what regions do not have.

    Raises:
        ValueError: It reads more than boxes, targets and image sizes.
    """
    more = sorted(assigner.needs - {"batch"})
    if more:
        raise ValueError(
            f"assigner: {type(assigner).__name__} reads {', '.join(more)}, which proposals do not have; "
            "use one that compares boxes, such as MaxIoUAssigner"
        )


def sample_regions(
    proposals: Proposals,
    targets: Targets,
    batch: ImageBatch,
    *,
    assigner: Assigner,
    sampler: Sampler,
    num_classes: int,
    add_gt_as_proposals: bool = True,
    pos_weight: float = 1.0,
    predict: RegionPredictor | None = None,
    generator: torch.Generator | None = None,
) -> RoISample:
    """The regions that a box head is trained on, min(``sampler.num``, N + M) rows per image.

    Args:
        proposals: N regions per image.
        targets: Ground truth.
        batch: The images.
        assigner: Which ground truth each region answers for.
        sampler: Which of them are chosen.
        num_classes: K.
        add_gt_as_proposals: Whether ground truths take part as regions too, positives of themselves.
        pos_weight: Weight of positives in the classification loss.
        predict: For samplers that rank by predictions.
        generator: Source of randomness; torch's global one where None.
    """
    with torch.no_grad():
        priors = regions_as_priors(proposals.boxes).replace(valid=proposals.valid)
        assignment = assigner.assign(priors, targets, None, batch)
        if add_gt_as_proposals:
            proposals, assignment = with_ground_truths(proposals, assignment, targets)
        lazily = None if predict is None else lambda: _without_cache(predict, proposals, assignment)
        chosen = sampler.sample(assignment, predict=lazily, generator=generator)
        count = proposals.boxes.shape[1]
        size = count if sampler.num is None else min(sampler.num, count)
        return gather_sample(
            proposals.boxes, targets, assignment, chosen, size,
            added=targets.boxes.shape[1] if add_gt_as_proposals else 0,
            num_classes=num_classes, pos_weight=pos_weight,
        )  # fmt: skip


def _without_cache(
    predict: RegionPredictor, proposals: Proposals, assignment: Assignment
) -> SamplingPredictions:
    """Predicts so that autocast keeps no weights that it casts: without gradients they are of no use later."""
    device = proposals.boxes.device.type
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    with torch.autocast(device, dtype, enabled, cache_enabled=False):
        return predict(proposals, assignment)


def with_ground_truths(
    proposals: Proposals, assignment: Assignment, targets: Targets
) -> tuple[Proposals, Assignment]:
    """The regions with the M ground truths put before them, each assigned to itself.

    Args:
        proposals: N regions per image.
        assignment: Of the regions alone.
        targets: Ground truth; regions to ignore take no part.
    """
    real = targets.matchable
    own = torch.arange(real.shape[1], device=real.device).expand_as(real)
    state = torch.where(real, POSITIVE, IGNORED).to(assignment.state.dtype)
    score = real.to(proposals.scores.dtype)
    joined = Proposals(
        torch.cat((targets.boxes.to(proposals.boxes.dtype), proposals.boxes), 1),
        torch.cat((score, proposals.scores), 1),
        torch.cat((real, proposals.valid), 1),
    )
    return joined, Assignment(
        torch.cat((own.where(real, 0), assignment.gt_index), 1),
        torch.cat((state, assignment.state), 1),
        torch.cat((real.to(assignment.quality.dtype), assignment.quality), 1),
    )


def gather_sample(
    boxes: Float[Tensor, "B T 4"],
    targets: Targets,
    assignment: Assignment,
    chosen: Sample,
    size: int,
    *,
    added: int,
    num_classes: int,
    pos_weight: float = 1.0,
) -> RoISample:
    """``size`` rows per image, the positives first, then the negatives, then padding without extent.

    Args:
        boxes: All regions.
        targets: Ground truth.
        assignment: Of all regions.
        chosen: Which of them are samples; at most ``size`` of an image.
        size: Rows per image S.
        added: How many of the first regions are ground truths that joined the others.
        num_classes: K.
        pos_weight: Weight of positives in the classification loss.
    """
    rank = 2 - 2 * chosen.positive.long() - chosen.negative.long()
    order = rank.argsort(dim=1, stable=True)[:, :size]
    image = torch.arange(len(boxes), device=boxes.device)[:, None].expand_as(order)

    def rows(values: Tensor) -> Tensor:
        return values[image, order].flatten(0, 1)

    positive = rows(chosen.positive)
    real = positive | rows(chosen.negative)
    own = torch.where(real[:, None], rows(boxes), 0)
    gt_index = rows(assignment.gt_index).where(positive, 0)
    of_image = image.flatten()
    return RoISample(
        boxes=own,
        image=of_image,
        real=real,
        added=real & (order < added).flatten(),
        positive=positive,
        labels=rows(class_labels(assignment, chosen.positive, targets, num_classes)),
        weight=rows(class_weights(chosen, pos_weight)),
        gt_index=gt_index,
        gt_boxes=torch.where(positive[:, None], targets.boxes[of_image, gt_index].to(own.dtype), own),
    )


def flat(proposals: Proposals) -> tuple[Float[Tensor, "P 4"], Int[Tensor, "P"]]:
    """All regions of a batch as one list, padding too, and the image of each."""
    count, rows = proposals.scores.shape
    image = torch.arange(count, device=proposals.boxes.device).repeat_interleave(rows)
    return proposals.boxes.flatten(0, 1), image


def without_padding(proposals: Proposals) -> Proposals:
    """The proposals up to the last one that is valid in any image: nothing is computed for what is cut off.

    Under the compiler, which needs fixed shapes, all of them.
    """
    if torch.compiler.is_compiling() or not proposals.boxes.numel():
        return proposals
    used = proposals.valid.any(0).nonzero()
    count = int(used[-1]) + 1 if len(used) else 0
    queries = None if proposals.queries is None else proposals.queries[:, :count]
    return Proposals(
        proposals.boxes[:, :count], proposals.scores[:, :count], proposals.valid[:, :count], queries
    )
