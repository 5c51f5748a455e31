"""What every detector does with its arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detcore.component import Component, walk
from detcore.errors import DataError
from detcore.interfaces.detector import Detector
from detcore.structures import ClassMap, ImageBatch, Targets


def unnamed_classes(count: int) -> ClassMap:
    """A class map for a detector that nobody has told its classes' names."""
    return ClassMap(tuple(f"class{label}" for label in range(count)))


def check_class_map(class_map: ClassMap, num_classes: int) -> ClassMap:
    """The class map, if it has the detector's number of classes.

    Raises:
        DataError: It has not.
    """
    if len(class_map) != num_classes:
        raise DataError(
            f"the class map has {len(class_map)} classes, the detector {num_classes}: {class_map.names}"
        )
    return class_map


def as_batch(detector: Detector, images: ImageBatch | Sequence[Tensor]) -> ImageBatch:
    """The batch itself, or images preprocessed."""
    return images if isinstance(images, ImageBatch) else detector.preprocess(images)


def as_targets(
    targets: Targets | Sequence[Mapping[str, Any]] | None, batch: ImageBatch, num_classes: int
) -> Targets:
    """Targets on the batch's device.

    Raises:
        DataError: They are missing, differ in number from the images, or hold labels outside 0..K-1.
    """
    if targets is None:
        raise DataError("training needs targets: model(images, targets); call model.eval() to predict")
    if isinstance(targets, Targets):
        stacked = targets
    else:
        for index, image in enumerate(targets):
            _check_labels(index, image, num_classes)
        stacked = Targets.stack(targets)
    if len(stacked) != len(batch):
        raise DataError(f"{len(batch)} images but targets for {len(stacked)}")
    return stacked.to(batch.pixels.device)


def _check_labels(index: int, image: Mapping[str, Any], num_classes: int) -> None:
    labels = torch.as_tensor(image.get("labels", ()))
    if labels.numel() and (int(labels.min()) < 0 or int(labels.max()) >= num_classes):
        found = f"{int(labels.min())}..{int(labels.max())}"
        raise DataError(f"targets[{index}]: labels should be 0..{num_classes - 1}, got {found}")


def class_agnostic(targets: Targets) -> Targets:
    """The same objects, all of class 0."""
    return targets.replace(labels=torch.zeros_like(targets.labels))


def merged(prefix: str, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of both; the names of ``first`` that ``second`` has too get the prefix."""
    return {**{f"{prefix}{name}" if name in second else name: x for name, x in first.items()}, **second}


def tell_progress(detector: Component, epoch: int, step: int) -> None:
    """Calls ``on_progress(epoch, step)`` of every part that has it, the detector itself left out.

    Blocks that a network has attached inside of itself are no parts of their own, but modules; they are told too.
    """
    parts: list[object] = [part for path, part in walk(detector) if path]
    modules = detector.modules() if isinstance(detector, nn.Module) else ()
    attached = [module for module in modules if isinstance(module, Component) and module is not detector]
    for part in {id(one): one for one in (*parts, *attached)}.values():
        listener = getattr(part, "on_progress", None)
        if listener is not None:
            listener(epoch, step)
