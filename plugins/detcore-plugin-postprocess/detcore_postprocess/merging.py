"""Merging of what a detector says about several versions of an image (test-time augmentation).

Every version is an :class:`~detcore.structures.ImageBatch` of the same images in the same order, which knows the
way back to the files; results are in the pixels of the files. Second stages average what they say about the same
proposals (boxes, scores, masks); first stages and whole detectors say different things in each version, and
these are put together and suppressed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from detcore.errors import ConfigError
from detcore.structures import Detections, ImageBatch, Proposals
from detcore_postprocess.interface import Suppression
from detcore_postprocess.results import keep_best


def boxes_to_original(boxes: Float[Tensor, "B *S 4"], batch: ImageBatch) -> Float[Tensor, "B *S 4"]:
    """Boxes in the pixels of the image files: unflipped, uncut, unscaled, and not clipped."""
    extra = (1,) * (boxes.dim() - 1)
    size, origin, scale, flip = (
        table.reshape(len(batch), *extra, 2)
        for table in (batch.sizes.flip(-1), batch.origin, batch.scale, batch.flip)
    )
    corners = boxes.reshape(*boxes.shape[:-1], 2, 2)
    corners = torch.where(flip, (size - corners).flip(-2), corners)
    return ((corners + origin) / scale).flatten(-2)


def average_boxes(
    boxes: Sequence[Float[Tensor, "B *S 4"]], batches: Sequence[ImageBatch]
) -> Float[Tensor, "B *S 4"]:
    """The mean of several predictions of the same boxes, in the pixels of the files.

    Args:
        boxes: xyxy, by version of the images.
        batches: The versions.

    Raises:
        ConfigError: There is no version, or not one list of boxes for each.
    """
    _check(boxes, batches, "average_boxes")
    mapped = [boxes_to_original(own, batch) for own, batch in zip(boxes, batches, strict=True)]
    return torch.stack(mapped).mean(0)


def average_scores(scores: Sequence[Float[Tensor, "B *S K"]]) -> Float[Tensor, "B *S K"]:
    """The mean of several predictions of the same scores.

    Raises:
        ConfigError: There is nothing to average.
    """
    _check(scores, scores, "average_scores")
    return torch.stack(list(scores)).mean(0)


def average_masks(
    masks: Sequence[Float[Tensor, "B *S h w"]],
    batches: Sequence[ImageBatch],
    weights: Sequence[float] | None = None,
) -> Float[Tensor, "B *S h w"]:
    """The mean of several predictions of the same masks, each within its box, unflipped.

    The reference's function of this kind fails where an image is flipped (MMDetection 3.3); the numbers are those of
    its version 2.28.

    Args:
        masks: Probabilities, by version of the images.
        batches: The versions.
        weights: Of the versions; equal ones where None.

    Raises:
        ConfigError: There is no version, not one tensor of masks for each, or weights that are negative or all 0.
    """
    _check(masks, batches, "average_masks")
    parts = [1.0] * len(masks) if weights is None else list(weights)
    if len(parts) != len(masks) or min(parts) < 0 or not sum(parts):
        raise ConfigError(
            f"weights should be {len(masks)} numbers, none negative and not all 0, got {parts}",
            "average_masks",
        )
    total = torch.zeros_like(masks[0])
    for own, batch, part in zip(masks, batches, parts, strict=True):
        total = total + _unflip(own, batch.flip) * (part / sum(parts))
    return total


def merge_proposals(
    proposals: Sequence[Proposals],
    batches: Sequence[ImageBatch],
    *,
    nms: Suppression,
    max_per_img: int,
) -> Proposals:
    """The best proposals of all versions, in the pixels of the files, those that repeat better ones left out.

    Args:
        proposals: By version of the images. Queries are not kept.
        batches: The versions.
        nms: How repetitions are suppressed.
        max_per_img: Rows of the result per image (N), padded where there are fewer.

    Raises:
        ConfigError: There is no version, or not one set of proposals for each.
    """
    _check(proposals, batches, "merge_proposals")
    boxes = [boxes_to_original(own.boxes, batch) for own, batch in zip(proposals, batches, strict=True)]
    together = torch.cat(boxes, 1)
    scores = torch.cat([own.scores for own in proposals], 1)
    valid = torch.cat([own.valid for own in proposals], 1)
    group = torch.zeros(scores.shape, dtype=torch.int64, device=scores.device)
    left = nms(together, scores, group, valid=valid, most=max_per_img)
    slots, real = keep_best(left.scores, left.kept, max_per_img)
    if not scores.shape[1]:
        return Proposals(together.new_zeros(len(scores), max_per_img, 4), scores.new_zeros(real.shape), real)
    rows = together.gather(1, slots[..., None].expand(-1, -1, 4))
    return Proposals(
        boxes=torch.where(real[..., None], rows, 0),
        scores=torch.where(real, left.scores.gather(1, slots), 0),
        valid=real,
    )


def merge_detections(
    detections: Sequence[Detections],
    batches: Sequence[ImageBatch],
    *,
    nms: Suppression,
    max_per_img: int,
    class_agnostic: bool = False,
) -> Detections:
    """The best detections of all versions, in the pixels of the files, those that repeat better ones left out.

    Args:
        detections: By version of the images; masks are kept where all versions have some of one resolution.
        batches: The versions.
        nms: How repetitions are suppressed, class by class.
        max_per_img: Rows of the result per image (Q), padded where there are fewer.
        class_agnostic: Whether detections suppress those of other classes too.

    Raises:
        ConfigError: There is no version, or not one set of detections for each.
    """
    together = concatenate_detections(detections, batches)
    groups = torch.zeros_like(together.labels) if class_agnostic else together.labels
    left = nms(together.boxes, together.scores, groups, valid=together.valid, most=max_per_img)
    return best_detections(together.replace(scores=left.scores, valid=left.kept), max_per_img)


def concatenate_detections(detections: Sequence[Detections], batches: Sequence[ImageBatch]) -> Detections:
    """The detections of all versions one after the other, in the pixels of the files; not in order of their scores.

    Args:
        detections: By version of the images; masks are kept where all versions have some of one resolution.
        batches: The versions.

    Raises:
        ConfigError: There is no version, or not one set of detections for each.
    """
    _check(detections, batches, "concatenate_detections")
    return join_detections([own.to_original(batch) for own, batch in zip(detections, batches, strict=True)])


def join_detections(views: Sequence[Detections]) -> Detections:
    """Detections of the same images in the same pixels one after the other; not in order of their scores.

    Args:
        views: At least one; masks are kept where all have some of one resolution.
    """
    masks = [own.masks for own in views if own.masks is not None]
    alike = len(masks) == len(views) and len({own.shape[2:] for own in masks}) == 1
    return Detections(
        boxes=torch.cat([own.boxes for own in views], 1),
        scores=torch.cat([own.scores for own in views], 1),
        labels=torch.cat([own.labels for own in views], 1),
        valid=torch.cat([own.valid for own in views], 1),
        masks=torch.cat(masks, 1) if alike else None,
        image_sizes=views[0].image_sizes,
    )


def check_weights(views: Sequence[Detections], weights: Sequence[float] | None, title: str) -> list[float]:
    """One weight for each view; ones where None.

    Raises:
        ConfigError: There is no view, or not one positive weight for each.
    """
    shares = [1.0] * len(views) if weights is None else list(weights)
    if not views or len(shares) != len(views) or not all(0 < share < math.inf for share in shares):
        raise ConfigError(
            f"weights should be one positive number for each of {len(views)} views, of which there is at least "
            f"one; got {shares}",
            title,
        )
    return shares


def best_detections(detections: Detections, count: int) -> Detections:
    """The ``count`` best valid rows of each image, by descending score, padded with zeros."""
    slots, real = keep_best(detections.scores, detections.valid, count)
    missing = 0 if detections.scores.shape[1] else 1  # a row to point at

    def rows(values: Tensor) -> Tensor:
        values = torch.cat((values, values.new_zeros(len(values), missing, *values.shape[2:])), 1)
        image = torch.arange(len(values), device=values.device)[:, None]
        chosen = values[image, slots]
        return torch.where(real.reshape(*real.shape, *(1,) * (chosen.dim() - 2)), chosen, 0)

    return Detections(
        boxes=rows(detections.boxes),
        scores=rows(detections.scores),
        labels=rows(detections.labels),
        valid=real,
        masks=None if detections.masks is None else rows(detections.masks),
        image_sizes=detections.image_sizes,
    )


def _unflip(masks: Float[Tensor, "B *S h w"], flip: Bool[Tensor, "B 2"]) -> Float[Tensor, "B *S h w"]:
    across, down = (flip[:, axis].reshape(-1, *(1,) * (masks.dim() - 1)) for axis in (0, 1))
    masks = torch.where(across, masks.flip(-1), masks)
    return torch.where(down, masks.flip(-2), masks)


def _check(values: Sequence[object], batches: Sequence[object], title: str) -> None:
    if not values or len(values) != len(batches):
        raise ConfigError(
            f"expected results of at least one version of the images, and one batch for each; got {len(values)} "
            f"results and {len(batches)} batches",
            title,
        )
