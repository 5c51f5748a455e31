"""What becomes of objects that a change of the picture moves, cuts or hides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias, cast

import torch
from detcore_data.functional import select
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from torchvision import tv_tensors

from detcore.interfaces import Example
from detcore.structures import ImageGeometry

#: What becomes of objects of which too little is left: regions to ignore, or nothing.
Leftover: TypeAlias = Literal["ignore", "drop"]
MinSize: TypeAlias = Annotated[float, Field(ge=0)]
MinRatio: TypeAlias = Annotated[float, Field(ge=0, le=1)]


def with_contents(
    example: Example,
    *,
    image: Tensor,
    boxes: Float[Tensor, "n 4"],
    labels: Tensor,
    ignore: Tensor,
    masks: Tensor | None,
    geometry: ImageGeometry,
) -> Example:
    """The example with another picture and other objects; its file and its id stay."""
    size = (int(image.shape[-2]), int(image.shape[-1]))
    changes: dict[str, Any] = {
        "image": tv_tensors.Image(image),
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
        "labels": labels,
        "ignore": ignore,
        "geometry": geometry,
    }
    if masks is not None:
        changes["masks"] = tv_tensors.Mask(masks)
    kept = {key: value for key, value in example.items() if key != "masks"}
    return cast(Example, {**kept, **changes})


def moved(
    example: Example, *, image: Tensor, boxes: Tensor, masks: Tensor | None, geometry: ImageGeometry
) -> Example:
    """The example with another picture and the same objects elsewhere."""
    labels, ignore = example["labels"].clone(), example["ignore"].clone()
    return with_contents(
        example, image=image, boxes=boxes, labels=labels, ignore=ignore, masks=masks, geometry=geometry
    )


def together(
    example: Example, pieces: Sequence[Example], image: Tensor, masks: Tensor | None, geometry: ImageGeometry
) -> Example:
    """The example with the objects of several pictures of one size.

    Args:
        example: Gives file and id.
        pieces: Give boxes, labels and ignored regions, in order.
        image: The picture.
        masks: Of all objects; None where the pieces have none.
        geometry: Of the picture.
    """
    return with_contents(
        example,
        image=image,
        boxes=torch.cat([piece["boxes"].as_subclass(Tensor) for piece in pieces]),
        labels=torch.cat([piece["labels"] for piece in pieces]),
        ignore=torch.cat([piece["ignore"] for piece in pieces]),
        masks=masks,
        geometry=geometry,
    )


def masks_of(example: Example) -> Bool[Tensor, "n h w"] | None:
    """An example's masks, where it has some."""
    return example["masks"].as_subclass(Tensor) if "masks" in example else None


def trimmed(
    example: Example,
    *,
    min_bbox_size: float,
    min_area_ratio: float,
    leftover: Leftover,
    cut: Bool[Tensor, "n"] | None = None,
) -> Example:
    """The example with its boxes cut off at the border, without what is left of objects that are hardly in it.

    Regions to ignore are kept as long as something of them is in the picture. So are objects whose mask has no
    pixel left, as regions to ignore, or not at all.

    Args:
        example: Its boxes may reach out of the picture, or lie outside.
        min_bbox_size: Objects with a side below this are left out, in pixels.
        min_area_ratio: Objects of which less than this fraction of the box is in the picture are left over.
        leftover: What becomes of them.
        cut: Further objects that are left over.
    """
    height, width = example["image"].shape[-2:]
    before = example["boxes"].as_subclass(Tensor)
    boxes = torch.minimum(before.clamp(min=0), before.new_tensor([width, height, width, height]))
    sides = boxes[:, 2:] - boxes[:, :2]
    extent = (sides > 0).all(-1)
    left = sides.prod(-1) < min_area_ratio * (before[:, 2:] - before[:, :2]).prod(-1)
    if cut is not None:
        left = left | cut
    if "masks" in example:
        left = left | ~example["masks"].as_subclass(Tensor).flatten(1).any(-1)
    ignore = example["ignore"]
    kept = extent & (ignore | (sides >= min_bbox_size).all(-1))
    if leftover == "drop":
        kept = kept & (ignore | ~left)
    result = moved(
        example, image=example["image"], boxes=boxes, masks=masks_of(example), geometry=example["geometry"]
    )
    result["ignore"] = ignore | left
    return select(result, kept)


def extents(masks: Bool[Tensor, "n h w"]) -> Float[Tensor, "n 4"]:
    """The boxes around masks, in whole pixels; zeros for a mask without a pixel."""
    edges = []
    for occupied in (masks.any(-2), masks.any(-1)):  # [n, w], [n, h]
        length = occupied.shape[-1]
        place = torch.arange(length, device=masks.device)
        low = torch.where(occupied, place, length).amin(-1) if length else place.new_zeros(len(masks))
        high = torch.where(occupied, place + 1, 0).amax(-1) if length else low
        edges.append((torch.minimum(low, high), high))
    (x1, x2), (y1, y2) = edges
    return torch.stack((x1, y1, x2, y2), dim=-1).float()


def around_masks(example: Example) -> Example:
    """The example with boxes in whole pixels around its masks; where it has none, or a mask has no pixel, as it is."""
    masks = masks_of(example)
    if masks is None:
        return example
    boxes = example["boxes"].as_subclass(Tensor)
    boxes = torch.where(masks.flatten(1).any(-1)[:, None], extents(masks), boxes)
    return moved(
        example,
        image=example["image"].as_subclass(Tensor),
        boxes=boxes,
        masks=masks,
        geometry=example["geometry"],
    )
