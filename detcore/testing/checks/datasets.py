"""Checks of datasets."""

from __future__ import annotations

from typing import Any

import torch
from torchvision import tv_tensors

from detcore.interfaces import Dataset, Example
from detcore.structures import ClassMap, ImageGeometry
from detcore.testing.checking import Trial, check, probe
from detcore.testing.compare import snapshot

#: Only so many images are looked at.
MOST = 6
REQUIRED = ("image", "boxes", "labels", "ignore", "image_id", "file", "geometry")


def _indices(dataset: Dataset) -> list[int]:
    return list(range(min(len(dataset), MOST)))


def _item(trial: Trial, dataset: Dataset, index: int) -> Example:
    torch.manual_seed(trial.seed + index)  # random transforms are seeded by their owner
    return dataset[index]


@probe(Dataset)
def read_once(dataset: Dataset, trial: Trial) -> Any:
    """The first items."""
    return [dict(_item(trial, dataset, index)) for index in _indices(dataset)[:2]]


def check_example(trial: Trial, example: Any, what: str, num_classes: int | None = None) -> None:
    """Fails where an example is not what :class:`~detcore.interfaces.Example` says."""
    missing = [name for name in REQUIRED if name not in example]
    trial.require(not missing, f"{what} lacks {', '.join(missing)}")
    image, boxes = example["image"], example["boxes"]
    trial.require(isinstance(image, tv_tensors.Image), f"{what}: image is a {type(image).__name__}")
    trial.require(image.dtype == torch.uint8, f"{what}: image is {image.dtype}")
    trial.require(image.dim() == 3 and image.shape[0] == 3, f"{what}: image is {list(image.shape)}")
    trial.require(isinstance(boxes, tv_tensors.BoundingBoxes), f"{what}: boxes are a {type(boxes).__name__}")
    size = tuple(image.shape[-2:])
    canvas = tuple(boxes.canvas_size)
    trial.require(canvas == size, f"{what}: the boxes' canvas is {canvas}, the image {size}")
    count = len(boxes)
    trial.require(tuple(boxes.shape) == (count, 4), f"{what}: boxes have shape {list(boxes.shape)}")
    for name in ("labels", "ignore"):
        shape = tuple(example[name].shape)
        trial.require(shape == (count,), f"{what}: {count} boxes, but {name} have shape {list(shape)}")
    plain = boxes.as_subclass(torch.Tensor)
    trial.require(plain.isfinite(), f"{what}: a box is not finite", plain)
    trial.require(plain[:, 2:] > plain[:, :2], f"{what}: a box has no extent", plain[:, 2:])
    limit = torch.tensor([size[1], size[0], size[1], size[0]])
    trial.require((plain >= 0) & (plain <= limit), f"{what}: a box leaves the image", plain)
    trial.require(example["ignore"].dtype == torch.bool, f"{what}: ignore is {example['ignore'].dtype}")
    trial.require(example["labels"].dtype == torch.int64, f"{what}: labels are {example['labels'].dtype}")
    trial.require(example["labels"] >= 0, f"{what}: a label is negative", example["labels"])
    if num_classes is not None:
        fits = example["labels"] < num_classes
        trial.require(fits, f"{what}: a label is not below {num_classes}", example["labels"])
    trial.require(isinstance(example["geometry"], ImageGeometry), f"{what}: geometry is no ImageGeometry")
    if "masks" in example:
        shape = tuple(example["masks"].shape)
        trial.require(shape == (count, *size), f"{what}: masks have shape {list(shape)}")


@check(Dataset)
def dataset_items_are_well_formed(trial: Trial) -> None:
    """Items are Examples: uint8 images, boxes with an extent inside of them, labels of the class map."""
    dataset = trial.component()
    trial.require(len(dataset) > 0, "it has no image")
    for index in _indices(dataset):
        example = _item(trial, dataset, index)
        check_example(trial, example, f"item {index}", len(dataset.class_map))


@check(Dataset)
def dataset_images_have_ids(trial: Trial) -> None:
    """Every image has an integer id of its own, and names its file."""
    dataset = trial.component()
    items = [_item(trial, dataset, index) for index in _indices(dataset)]
    ids = [item["image_id"] for item in items]
    trial.require(all(type(i) is int for i in ids), f"ids are {ids}")
    trial.require(len(set(ids)) == len(ids), f"two images have one id: {ids}")
    trial.require(all(isinstance(item["file"], str) for item in items), "file is no text")


@check(Dataset, compares=True)
def dataset_items_depend_on_their_index(trial: Trial) -> None:
    """An item is the same whichever items were read before, in another copy of the dataset too."""
    dataset = trial.component()
    indices = _indices(dataset)
    forwards = {index: snapshot(dict(_item(trial, dataset, index))) for index in indices}
    other = trial.component()
    for index in reversed(indices):
        again = snapshot(dict(_item(trial, other, index)))
        trial.same(again, forwards[index], f"item {index} read in reverse order", rtol=0, atol=0)


@check(Dataset, compares=True)
def dataset_items_are_fresh(trial: Trial) -> None:
    """Writing to an item does not change the dataset."""
    dataset = trial.component()
    before = snapshot(dict(_item(trial, dataset, 0)))
    item = _item(trial, dataset, 0)
    item["image"].fill_(7)
    item["boxes"].fill_(3)
    item["labels"].fill_(0)
    trial.same(snapshot(dict(_item(trial, dataset, 0))), before, "the item, read again", rtol=0, atol=0)


@check(Dataset)
def dataset_has_an_end(trial: Trial) -> None:
    """An index beyond the last image raises IndexError, so that it can be iterated."""
    dataset = trial.component()
    try:
        dataset[len(dataset)]
    except IndexError:
        return
    trial.fail("it does not")


@check(Dataset)
def dataset_has_classes(trial: Trial) -> None:
    """``class_map`` names its classes."""
    found = trial.component().class_map
    trial.require(isinstance(found, ClassMap), f"class_map is a {type(found).__name__}")
