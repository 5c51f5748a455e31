"""Numbers that describe a split."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from detcore_data.checks import Counts
from detcore_data.records import Records


@dataclass(frozen=True)
class ClassFacts:
    """One class of a split.

    Args:
        label: 0..K-1, as the network has it.
        dataset_id: As the annotation files have it.
        name: Its name.
        objects: Number of objects, regions to ignore left out.
        images: Number of images with any of them.
        ignored: Number of regions to ignore of this class.
    """

    label: int
    dataset_id: int
    name: str
    objects: int
    images: int
    ignored: int


def class_facts(records: Records) -> tuple[ClassFacts, ...]:
    """Per class, in the order of labels."""
    annotations, number = records.annotations, len(records.class_map)
    ignored = torch.bincount(
        annotations.labels[annotations.ignore & ~annotations.any_class], minlength=number
    ).tolist()
    labels, image_of = annotations.labels[~annotations.ignore], records.image_of[~annotations.ignore]
    objects = torch.bincount(labels, minlength=number).tolist()
    pairs = torch.unique(image_of * number + labels)
    images = torch.bincount(pairs % number, minlength=number).tolist()
    rows = zip(records.class_map.names, records.class_map.ids, objects, images, ignored, strict=True)
    return tuple(ClassFacts(label, i, name, *rest) for label, (name, i, *rest) in enumerate(rows))


def split_facts(records: Records, sizes: Int[Tensor, "I 2"], counts: Counts) -> dict[str, Any]:
    """What a split has: numbers of images, objects and regions, sizes of images and boxes.

    Args:
        records: All that the files have.
        sizes: (h, w) of the images, zeros for unknown.
        counts: What was left out as the files were read.
    """
    annotations = records.annotations
    objects = ~annotations.ignore
    occupied = torch.bincount(records.image_of[objects], minlength=len(records)) > 0
    return {
        "images": len(records),
        "empty_images": int((~occupied).sum()),
        "objects": int(objects.sum()),
        "ignored": int(annotations.ignore.sum()),
        "ignored_for_every_class": int(annotations.any_class.sum()),
        "annotations_of_other_classes": counts.other_classes,
        "annotations_of_unlisted_images": counts.dangling,
        "objects_per_image": _quantiles(torch.bincount(records.image_of[objects], minlength=len(records))),
        "image_width": _quantiles(sizes[(sizes > 0).all(-1), 1]),
        "image_height": _quantiles(sizes[(sizes > 0).all(-1), 0]),
        "commonest_sizes": _commonest(sizes),
        "box_width": _quantiles(annotations.boxes[objects, 2]),
        "box_height": _quantiles(annotations.boxes[objects, 3]),
    }


def _quantiles(values: Tensor) -> dict[str, float] | None:
    """Least, median and greatest; None where there is no value."""
    values = values[values.isfinite()].double().sort().values
    if not len(values):
        return None
    return {
        "min": values[0].item(),
        "median": values[(len(values) - 1) // 2].item(),
        "max": values[-1].item(),
    }


def _commonest(sizes: Tensor, number: int = 3) -> list[dict[str, int]]:
    counted = Counter(map(tuple, sizes[(sizes > 0).all(-1)].tolist()))
    return [{"width": w, "height": h, "images": count} for (h, w), count in counted.most_common(number)]
