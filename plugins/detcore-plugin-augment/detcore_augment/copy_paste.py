"""Objects of one picture pasted into another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from detcore_data import MixTransform
from detcore_data.functional import select
from jaxtyping import Bool
from pydantic import Field
from torch import Tensor

from detcore.errors import DataError
from detcore.interfaces import Example
from detcore_augment.draws import Probability, happens, integer
from detcore_augment.objects import Leftover, extents, moved, together, trimmed
from detcore_augment.pictures import window

Count = Annotated[int, Field(ge=0)]


class CopyPaste(MixTransform):
    """Pastes objects of a second picture into the example, at the places where they are there.

    From Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method", arXiv 2012.07177. Masks decide what
    is pasted; the second picture is cut, not scaled, to the size of the example: put a resize with a random factor
    before (as the paper does). Objects that come to lie below keep what can be seen of them. Regions to ignore are not
    pasted. The example does not move: its way back to the file stays.

    Args:
        max_num_pasted: At most so many objects are pasted.
        bbox_occluded_thr: An object that is partly hidden is kept if no edge of the box around what is left is
            further than this from its old place, in pixels,
        mask_occluded_thr: or if more than this is left of its mask, in pixels.
        selected: Whether a random number of random objects is pasted; else all.
        paste_by_box: Whether boxes stand for masks where examples have none.
        leftover: What becomes of objects of which too little is left: regions to ignore, or nothing, as in the
            reference. What is hidden entirely is left out.
        prob: Probability that something is pasted.
    """

    def __init__(
        self,
        *,
        max_num_pasted: Annotated[int, Field(ge=1)] = 100,
        bbox_occluded_thr: Count = 10,
        mask_occluded_thr: Count = 300,
        selected: bool = True,
        paste_by_box: bool = False,
        leftover: Leftover = "ignore",
        prob: Probability = 1.0,
    ) -> None:
        self.max_num_pasted, self.selected, self.paste_by_box = max_num_pasted, selected, paste_by_box
        self.bbox_occluded_thr, self.mask_occluded_thr = bbox_occluded_thr, mask_occluded_thr
        self.leftover, self.prob = leftover, prob

    def others(self, length: int) -> tuple[int, ...]:
        """See :class:`~detcore_data.MixTransform`."""
        return (integer(0, length - 1),) if happens(self.prob) else ()

    def mix(self, example: Example, others: Sequence[Example]) -> Example:
        """See :class:`~detcore_data.MixTransform`.

        Raises:
            DataError: An example has no masks, and ``paste_by_box`` is not set; names the file.
        """
        size = tuple(example["image"].shape[-2:])
        source = self._chosen(window(self._masked(others[0]), 0, 0, (size[0], size[1])))
        if not len(source["boxes"]):
            return example
        over = source["masks"].as_subclass(Tensor)
        hidden = over.any(0)
        below = self._below(self._masked(example), hidden)
        image = torch.where(
            hidden.to(example["image"].device),
            source["image"].as_subclass(Tensor),
            example["image"].as_subclass(Tensor),
        )
        masks = torch.cat((below["masks"].as_subclass(Tensor), over)) if "masks" in example else None
        return together(example, (below, source), image, masks, example["geometry"])

    def _masked(self, example: Example) -> Example:
        """The example with masks: its own, or, where that is asked for, its boxes."""
        if "masks" in example:
            return example
        if not self.paste_by_box:
            raise DataError(
                f"{example['file']}: CopyPaste needs masks; set with_masks=True in the dataset, "
                "or paste_by_box=True to paste whole boxes"
            )
        height, width = example["image"].shape[-2:]
        boxes = example["boxes"].as_subclass(Tensor)
        x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
        in_x = (x >= boxes[:, None, 0]) & (x < boxes[:, None, 2])
        in_y = (y >= boxes[:, None, 1]) & (y < boxes[:, None, 3])
        return _with_masks(example, in_y[:, :, None] & in_x[:, None, :])

    def _chosen(self, source: Example) -> Example:
        """Some of the objects that can be seen, none to be ignored; cut to the picture, boxes as they are seen."""
        source = trimmed(source, min_bbox_size=0, min_area_ratio=0, leftover="drop")
        objects = (~source["ignore"]).nonzero().flatten()
        most = min(len(objects), self.max_num_pasted)
        count = integer(0, most) if self.selected else most
        return select(source, objects[torch.randperm(len(objects))[:count].sort().values])

    def _below(self, example: Example, hidden: Bool[Tensor, "h w"]) -> Example:
        """The example's objects without what is hidden of them."""
        before = example["masks"].as_subclass(Tensor)
        boxes = example["boxes"].as_subclass(Tensor)
        masks = before & ~hidden
        touched = (before & hidden).flatten(1).any(-1)
        areas = masks.flatten(1).sum(-1)
        seen = extents(masks)
        seen = torch.cat(
            (torch.maximum(seen[:, :2], boxes[:, :2]), torch.minimum(seen[:, 2:], boxes[:, 2:])), 1
        )
        kept = ((seen - boxes).abs() <= self.bbox_occluded_thr).all(-1) | (areas > self.mask_occluded_thr)
        boxes = torch.where(touched[:, None], seen, boxes)
        image = example["image"].as_subclass(Tensor)
        result = moved(example, image=image, boxes=boxes, masks=masks, geometry=example["geometry"])
        result["ignore"] = example["ignore"] | (touched & ~kept)
        there = (areas > 0) | ~touched
        if self.leftover == "drop":
            there = there & (~touched | kept | example["ignore"])
        extent = (boxes[:, 2:] > boxes[:, :2]).all(-1)
        return select(result, there & extent)


def _with_masks(example: Example, masks: Tensor) -> Example:
    return moved(
        example,
        image=example["image"].as_subclass(Tensor),
        boxes=example["boxes"].as_subclass(Tensor),
        masks=masks,
        geometry=example["geometry"],
    )
