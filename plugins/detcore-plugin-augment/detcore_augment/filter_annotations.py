"""Leaving out objects by their size or shape."""

from __future__ import annotations

from typing import Annotated

import torch
from detcore_data.functional import select
from pydantic import Field
from torch import Tensor

from detcore.interfaces import Example, Transform
from detcore_augment.objects import Leftover, MinSize, moved


class FilterAnnotations(Transform):
    """Leaves out objects that are too small or too slim, as the network would see them; the picture stays.

    Regions to ignore are kept. An image without objects stays one: it is all background.

    Args:
        min_gt_bbox_wh: Smallest width and height of a box, in pixels.
        min_gt_mask_area: Smallest area of a mask, in pixels; where examples have masks.
        max_aspect_ratio: Largest ratio of a box's longer to its shorter side; None for any.
        leftover: What becomes of the others: nothing, or regions to ignore.
    """

    def __init__(
        self,
        *,
        min_gt_bbox_wh: tuple[MinSize, MinSize] = (1.0, 1.0),
        min_gt_mask_area: MinSize = 0.0,
        max_aspect_ratio: Annotated[float, Field(ge=1)] | None = None,
        leftover: Leftover = "drop",
    ) -> None:
        self.min_gt_bbox_wh, self.min_gt_mask_area = min_gt_bbox_wh, min_gt_mask_area
        self.max_aspect_ratio, self.leftover = max_aspect_ratio, leftover

    def __call__(self, example: Example) -> Example:
        """See :class:`~detcore.interfaces.Transform`."""
        boxes = example["boxes"].as_subclass(Tensor)
        sides = boxes[:, 2:] - boxes[:, :2]
        fits = (sides >= torch.tensor(self.min_gt_bbox_wh)).all(-1)
        if self.max_aspect_ratio is not None:
            fits &= sides.amax(-1) <= self.max_aspect_ratio * sides.amin(-1)
        masks = example["masks"].as_subclass(Tensor) if "masks" in example else None
        if masks is not None:
            fits &= masks.flatten(1).sum(-1) >= self.min_gt_mask_area
        ignore = example["ignore"]
        if self.leftover == "drop":
            return select(example, fits | ignore)
        image = example["image"].as_subclass(Tensor)
        result = moved(example, image=image, boxes=boxes, masks=masks, geometry=example["geometry"])
        result["ignore"] = ignore | ~fits
        return result
