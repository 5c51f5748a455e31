"""Examples of one step put together: what a data loader hands to a training loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from detcore.errors import DataError
from detcore.interfaces import Example
from detcore.masks import Masks
from detcore.structures import ImageGeometry, Targets


@dataclass(frozen=True)
class ExampleBatch:
    """B examples with their ground truth; images keep their own sizes, a detector pads them itself.

    Args:
        images: Per image uint8 [3, H_i, W_i], RGB.
        targets: Ground truth, padded to the batch's maximum of objects; boxes in the pixels of ``images``.
        geometry: Per image the way back to its file.
        image_ids: Per image the dataset's id.
        files: Per image the path of its file.
    """

    images: tuple[Tensor, ...]
    targets: Targets
    geometry: tuple[ImageGeometry, ...]
    image_ids: tuple[int, ...]
    files: tuple[str, ...]

    def __len__(self) -> int:
        """The number of images B."""
        return len(self.images)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """A copy whose tensors are on ``device``."""
        return dataclasses.replace(
            self,
            images=tuple(image.to(device, non_blocking=non_blocking) for image in self.images),
            targets=self.targets.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> Self:
        """A copy in page-locked memory; called by a data loader with ``pin_memory=True``."""
        return dataclasses.replace(
            self,
            images=tuple(image.pin_memory() for image in self.images),
            targets=_pin(self.targets),
        )


def collate(examples: Sequence[Example]) -> ExampleBatch:
    """Puts examples together; the ``collate_fn`` of a data loader over a dataset.

    Args:
        examples: Items of a dataset, of any sizes and numbers of objects.

    Raises:
        DataError: There is no example, or an example's boxes, labels and masks disagree in number.
    """
    if not examples:
        raise DataError("collate: a batch needs at least one example")
    return ExampleBatch(
        images=tuple(example["image"].as_subclass(Tensor) for example in examples),
        targets=Targets.stack([_target(example) for example in examples]),
        geometry=tuple(example["geometry"] for example in examples),
        image_ids=tuple(example["image_id"] for example in examples),
        files=tuple(example["file"] for example in examples),
    )


def _target(example: Example) -> dict[str, Any]:
    target: dict[str, Any] = {
        "boxes": example["boxes"].as_subclass(Tensor),
        "labels": example["labels"],
        "ignore": example["ignore"],
    }
    if "masks" in example:
        target["masks"] = example["masks"].as_subclass(Tensor)
    return target


def _pin(structure: Any) -> Any:
    changes = {}
    for field in dataclasses.fields(structure):
        value = getattr(structure, field.name)
        if isinstance(value, Tensor):
            changes[field.name] = value.pin_memory()
        elif isinstance(value, Masks):
            changes[field.name] = _pin(value)
    return dataclasses.replace(structure, **changes)
