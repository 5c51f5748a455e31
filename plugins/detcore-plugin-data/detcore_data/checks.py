"""What is done about boxes that cannot be right: explicit, counted, and never silent."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from detcore.errors import DataError
from detcore_data.records import Records, clip_to_image

logger = logging.getLogger(__name__)

#: What to do with a box that has no extent in its image, or that reaches out of it.
Policy: TypeAlias = Literal["error", "clip", "drop"]

#: Boxes may reach out this far, in pixels: the rounding of annotation tools, or their counting from 1.
SLACK = 1.0


@dataclass(frozen=True)
class Counts:
    """What was left out of a dataset, or found odd, as it was read.

    Args:
        degenerate: Boxes without an extent inside their image; left out.
        outside: Boxes that reach out of their image by more than a pixel; cut off or left out, see
            ``policy``.
        dangling: Annotations of images that the file does not list; left out.
        other_classes: Annotations of classes that were not asked for; left out.
        empty_images: Images without objects (regions to ignore are none); left out where ``filter_empty``.
    """

    degenerate: int = 0
    outside: int = 0
    dangling: int = 0
    other_classes: int = 0
    empty_images: int = 0


def apply_policy(records: Records, policy: Policy) -> tuple[Records, int, int]:
    """Finds boxes that are degenerate or reach out of their image.

    Args:
        records: All that the files have.
        policy: ``error`` raises; ``clip`` leaves degenerate boxes out and the others be cut off when they
            are read; ``drop`` leaves out both.

    Returns:
        The records without the boxes that are left out, and the numbers of degenerate boxes and of those that
        reach out.

    Raises:
        DataError: There is such a box and the policy is ``error``; names the image and the annotation.
    """
    degenerate, outside = find_bad(records)
    bad = degenerate | outside
    if policy == "error" and bad.any():
        raise DataError(_first_bad(records, bad, degenerate))
    left_out = bad if policy == "drop" else degenerate
    kept = records.keep_annotations(~left_out) if left_out.any() else records
    return kept, int(degenerate.sum()), int(outside.sum())


def find_bad(
    records: Records, sizes: Int[Tensor, "I 2"] | None = None
) -> tuple[Bool[Tensor, "A"], Bool[Tensor, "A"]]:
    """Which boxes are degenerate (no extent inside their image, or not finite), and which others reach out.

    Args:
        records: All that the files have.
        sizes: (h, w) of the images where they are known better than annotated; zeros for unknown.
    """
    annotations = records.annotations
    sizes = (records.sizes if sizes is None else sizes)[records.image_of]
    known = (sizes > 0).all(-1)
    limits = torch.where(known[:, None], sizes, torch.iinfo(torch.int32).max)
    _, has_extent = clip_to_image(annotations.boxes, limits)
    degenerate = ~(has_extent & annotations.boxes.isfinite().all(-1))
    ends = annotations.boxes[:, :2] + annotations.boxes[:, 2:]
    over = (ends - limits.flip(-1)).amax(-1) > SLACK
    return degenerate, ((annotations.boxes[:, :2] < -SLACK).any(-1) | over) & ~degenerate


def format_hint(records: Records, outside: int) -> str:
    """What the boxes look like instead, where they look like another format; else nothing."""
    boxes = records.annotations.boxes
    if len(boxes) and boxes.abs().max() <= 1:
        return "every coordinate is at most 1: are they fractions of the image size? Pixels are expected"
    if outside > len(boxes) // 10:
        ordered = (boxes[:, 2:] > boxes[:, :2]).double().mean()
        if ordered > 0.99:
            return (
                "many boxes reach out of their image: are they x1, y1, x2, y2? Here x, y, w, h are expected"
            )
    return ""


def report(source: str, counts: Counts, policy: Policy, hint: str = "") -> None:
    """One warning where annotations were left out or will be cut off, or are of another format it seems."""
    done = {"clip": "cut off", "drop": "left out", "error": ""}[policy]
    parts = [
        f"{counts.degenerate} boxes without extent inside their image (left out)"
        if counts.degenerate
        else "",
        f"{counts.outside} boxes that reach out of their image ({done})" if counts.outside else "",
        f"{counts.dangling} annotations of images that are not listed (left out)" if counts.dangling else "",
    ]
    if any(parts):
        found = "; ".join(part for part in parts if part)
        logger.warning("%s: %s; policy='error' names the first of them", source, found)
    if hint:
        logger.warning("%s: %s", source, hint)


def _first_bad(records: Records, bad: Tensor, degenerate: Tensor) -> str:
    row = int(bad.nonzero()[0])
    record = records[int(records.image_of[row])]
    x, y, w, h = records.annotations.boxes[row].tolist()
    what = "has no extent inside the image" if degenerate[row] else "reaches out of the image"
    size = f" of {record.size[1]} x {record.size[0]} pixels" if record.size else ""
    more = int(bad.sum()) - 1
    return (
        f"{records.source}: annotation {int(records.annotations.ids[row])} of image {record.file!r}{size} "
        f"{what}: x={x:g} y={y:g} w={w:g} h={h:g}{f', and {more} more such boxes' if more else ''}; "
        "correct the file, or choose policy='clip' or 'drop'"
    )
