"""Masks in a second stage: the positives that they are learned from, and those of detections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detcore.errors import DataError
from detcore.interfaces import MaskHead
from detcore.interfaces.bbox_head import RoISample
from detcore.structures import Detections, ImageBatch, Losses, Targets

#: Gives the features of boxes [n, 4] in images [n].
Pool = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class MaskPositives:
    """The regions that a mask head is trained on, as one list of n rows.

    Args:
        rows: Their rows in the sample.
        boxes: The regions, xyxy in pixels.
        image: Image of each.
        labels: Its class.
        gt_index: Its ground truth.
    """

    rows: Int[Tensor, "n"]
    boxes: Float[Tensor, "n 4"]
    image: Int[Tensor, "n"]
    labels: Int[Tensor, "n"]
    gt_index: Int[Tensor, "n"]


def mask_positives(sample: RoISample) -> MaskPositives:
    """Gathers the positives. Their number depends on the data, so it synchronises with the device."""
    rows = sample.positive.nonzero().squeeze(1)
    return MaskPositives(
        rows, sample.boxes[rows], sample.image[rows], sample.labels[rows], sample.gt_index[rows]
    )


def mask_losses(
    head: MaskHead, features: Float[Tensor, "n C h w"], positives: MaskPositives, targets: Targets
) -> Losses:
    """The terms of a mask head, its targets being the masks of the ground truths inside the regions.

    Args:
        head: The mask head.
        features: Of the positives.
        positives: What it is trained on.
        targets: Ground truth with masks.

    Raises:
        DataError: There are positives, and no masks.
    """
    logits = head(features)
    size = (int(logits.shape[-2]), int(logits.shape[-1]))
    return head.loss(logits, positives.labels, _mask_targets(positives, targets, size))


def _mask_targets(
    positives: MaskPositives, targets: Targets, size: tuple[int, int]
) -> Float[Tensor, "n h w"]:
    """0 or 1 per cell: whether at least half of it belongs to the object."""
    if targets.masks is not None:
        soft = targets.masks.crop(positives.boxes, positives.gt_index, size, positives.image)
        return (soft >= 0.5).to(soft.dtype)
    if len(positives.rows):
        raise DataError(
            "a mask head needs targets with masks; load them with the data (with_masks: true), or leave out "
            "mask_head"
        )
    return positives.boxes.new_zeros((0, *size))  # no object in the whole batch: nobody has brought masks


class MaskPredictor(NamedTuple):
    """A mask head with the features that it sees.

    Args:
        head: The mask head.
        pool: Gives the features of boxes.
    """

    head: MaskHead
    pool: Pool

    def __call__(
        self, boxes: Float[Tensor, "n 4"], image: Int[Tensor, "n"], labels: Int[Tensor, "n"]
    ) -> Float[Tensor, "n h w"]:
        """Probabilities of the cells of the boxes."""
        return self.head.masks(self.head(self.pool(boxes, image)), labels)


def predict_masks(predictors: Sequence[MaskPredictor], found: Detections, batch: ImageBatch) -> Detections:
    """The detections with their masks, the mean over the stages' probabilities; unchanged without a stage.

    Args:
        predictors: One for each stage.
        found: Detections.
        batch: The images.
    """
    if not predictors:
        return found
    if torch.compiler.is_compiling():  # fixed shapes: of every row
        masks = _mean_masks(predictors, *_all_rows(found))
        masks = masks.reshape(*found.valid.shape, *masks.shape[1:])
        table = torch.where(found.valid[..., None, None], masks, 0)
    else:
        image, slot = found.valid.nonzero(as_tuple=True)
        masks = _mean_masks(predictors, found.boxes[image, slot], image, found.labels[image, slot])
        table = masks.new_zeros((*found.valid.shape, *masks.shape[1:]))
        table[image, slot] = masks
    return found.replace(masks=table, image_sizes=batch.sizes)


def _mean_masks(
    predictors: Sequence[MaskPredictor], boxes: Tensor, image: Tensor, labels: Tensor
) -> Float[Tensor, "n h w"]:
    return torch.stack([predict(boxes, image, labels) for predict in predictors]).mean(0)


def _all_rows(found: Detections) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, image and label of each row, padding too, as one list."""
    count, rows = found.valid.shape
    image = torch.arange(count, device=found.boxes.device)[:, None].expand(count, rows)
    return found.boxes.flatten(0, 1), image.flatten(), found.labels.flatten()
