"""Parts of made-up batches: one image of several, objects in another order."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from detcore.masks import Masks
from detcore.structures import Priors, Targets

S = TypeVar("S")


def image_of(structure: S, index: int) -> S:
    """One image of a batch, as a batch of one; what the images share stays as it is.

    Args:
        structure: Any of detcore's structures, a tensor whose first dimension is the batch, or a tuple of these.
        index: Which image.
    """
    if isinstance(structure, Priors) and structure.boxes.dim() == 2:
        valid = None if structure.valid is None else structure.valid[index : index + 1]
        return dataclasses.replace(structure, valid=valid)
    if isinstance(structure, Priors):
        return dataclasses.replace(structure, boxes=structure.boxes[index : index + 1])
    if isinstance(structure, Tensor):
        return structure[index : index + 1]  # type: ignore[return-value]
    if isinstance(structure, Masks):
        return masks_at(structure, slice(index, index + 1))  # type: ignore[return-value]
    if isinstance(structure, (tuple, list)) and not hasattr(structure, "_fields"):
        return type(structure)(image_of(item, index) for item in structure)
    if dataclasses.is_dataclass(structure) and not isinstance(structure, type):
        fields = {f.name: image_of(getattr(structure, f.name), index) for f in dataclasses.fields(structure)}
        return dataclasses.replace(structure, **fields)
    return structure


def reordered(targets: Targets, order: Sequence[int] | Tensor) -> Targets:
    """The same ground truth with its rows (dimension M) in another order.

    Args:
        targets: Ground truth.
        order: Old row of each new row.
    """
    order = torch.as_tensor(order)
    rows = {name: getattr(targets, name)[:, order] for name in ("boxes", "labels", "valid", "ignore")}
    masks = None if targets.masks is None else masks_at(targets.masks, (slice(None), order))
    return dataclasses.replace(targets, masks=masks, **rows)


def masks_at(masks: Masks, where: Any) -> Masks:
    """The masks of some images or rows."""
    tables = {name: getattr(masks, name)[where] for name in ("offsets", "sizes", "origins")}
    return dataclasses.replace(masks, **tables)
