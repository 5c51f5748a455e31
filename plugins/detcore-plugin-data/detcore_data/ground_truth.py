"""What a dataset says is in its images, in the pixels of the files, for evaluation."""

from __future__ import annotations

import contextlib

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from detcore.errors import DataError
from detcore.interfaces import Dataset
from detcore.structures import ImageGeometry
from detcore_data.epoch_seeded import EpochSeeded
from detcore_data.records import Annotations, Records
from detcore_data.switch import with_transforms


def records_of(dataset: Dataset | EpochSeeded) -> Records:
    """The records of any dataset.

    Datasets that keep ``records`` (those of this package do) are not read; for others every item is read,
    and its boxes are mapped back to the file, so they should have no transforms that lose objects.

    Args:
        dataset: Any dataset.
    """
    while isinstance(dataset, EpochSeeded):
        dataset = dataset.dataset
    records = getattr(dataset, "records", None)
    return records if isinstance(records, Records) else _from_items(dataset)


def to_file_pixels(
    boxes: Float[Tensor, "n 4"], size: tuple[int, int], geometry: ImageGeometry
) -> Float[Tensor, "n 4"]:
    """Boxes in an image's pixels as boxes in its file's: unflipped, uncut, unscaled.

    Args:
        boxes: xyxy, in float64 where the way back is to be exact.
        size: (h, w) of the image.
        geometry: How the image came from its file.
    """
    edges = boxes.view(-1, 2, 2)
    columns = []
    for axis, length in enumerate((size[1], size[0])):
        values = edges[..., axis]
        if geometry.flip[axis]:
            values = (length - values).flip(-1)
        columns.append((values + geometry.origin[axis]) / geometry.scale[axis])
    return torch.stack(columns, dim=-1).view(-1, 4)


def image_of(dataset: Dataset | EpochSeeded, index: int) -> UInt8[Tensor, "3 H W"] | None:
    """An image as its file has it, upright, before any transform.

    Args:
        dataset: Any dataset.
        index: Which image.

    Returns:
        The image; None where the dataset's transforms change its size or cut it, and cannot be switched off.

    Raises:
        DataError: The image is missing or cannot be decoded; names the file.
    """
    while isinstance(dataset, EpochSeeded):
        dataset = dataset.dataset
    with contextlib.suppress(DataError):
        dataset = with_transforms(dataset, ())
    item = dataset[index]
    image, geometry = item["image"].as_subclass(Tensor), item["geometry"]
    as_in_file = ImageGeometry((int(image.shape[-2]), int(image.shape[-1])))
    return image if geometry == as_in_file else None


def _from_items(dataset: Dataset) -> Records:
    files, ids, sizes, counts, boxes, labels, ignore = [], [], [], [], [], [], []
    for index in range(len(dataset)):
        item = dataset[index]
        height, width = item["image"].shape[-2:]
        found = to_file_pixels(item["boxes"].as_subclass(Tensor).double(), (height, width), item["geometry"])
        files.append(item["file"])
        ids.append(item["image_id"])
        sizes.append(item["geometry"].original_size)
        counts.append(len(found))
        boxes.append(torch.cat((found[:, :2], found[:, 2:] - found[:, :2]), dim=1))
        labels.append(item["labels"])
        ignore.append(item["ignore"])
    annotations = Annotations.of(
        boxes=torch.cat([*boxes, torch.zeros(0, 4)]).numpy(),
        labels=torch.cat([*labels, torch.zeros(0, dtype=torch.int64)]).numpy(),
        ignore=torch.cat([*ignore, torch.zeros(0, dtype=torch.bool)]).numpy(),
    )
    image_of = np.repeat(np.arange(len(files)), counts)
    source = type(dataset).__name__
    return Records.of(dataset.class_map, source, files, ids, sizes, image_of, annotations)
