"""The interface of detectors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from detcore.component import Component, walk
from detcore.errors import ConfigError, DataError
from detcore.structures import ClassMap, Detections, ImageBatch, ImageGeometry, Losses, Targets


class Detector(Component, nn.Module):
    """A whole model: images in, losses or detections out. A plain module, at home in anybody's training loop.

    A detector declares ``num_classes: int = wired()``, keeps it, and defines ``preprocess``, ``features``, ``loss``
    and ``predict``. What all detectors do alike stands here.
    """

    kind: ClassVar[str] = "detectors"

    #: K.
    num_classes: int
    _class_map: ClassMap | None = None

    @property
    def class_map(self) -> ClassMap:
        """Names and dataset ids of the classes; ``class0``, ``class1``, ... until set.

        Raises:
            ConfigError: The constructor has not kept ``num_classes``.
            DataError: A map of another number of classes than ``num_classes`` is set.
        """
        if self._class_map is not None:
            return self._class_map
        count = getattr(self, "num_classes", None)
        if count is None:
            raise ConfigError(
                f"{type(self).__name__} does not keep num_classes: "
                "its constructor must assign self.num_classes = num_classes"
            )
        return ClassMap(tuple(f"class{label}" for label in range(count)))

    @class_map.setter
    def class_map(self, value: ClassMap) -> None:
        # the number is not known yet where a constructor sets the map first
        count = getattr(self, "num_classes", len(value))
        if len(value) != count:
            raise DataError(f"the class map has {len(value)} classes, the detector {count}: {value.names}")
        self._class_map = value

    @abstractmethod
    def preprocess(
        self, images: Sequence[Tensor], geometry: Sequence[ImageGeometry] | None = None
    ) -> ImageBatch:
        """Normalises and pads, on the detector's device.

        Args:
            images: uint8 [3, H, W] RGB, of any sizes.
            geometry: The way back to the files; identity where omitted.
        """

    @abstractmethod
    def features(self, batch: ImageBatch) -> tuple[Tensor, ...]:
        """The pyramid that the heads see."""

    def forward(
        self,
        images: ImageBatch | Sequence[Tensor],
        targets: Targets | Sequence[Mapping[str, Any]] | None = None,
    ) -> Losses | Detections:
        """Losses in training mode, detections in evaluation mode; the one entry, also for DDP.

        Args:
            images: A batch, or uint8 images [3, H, W] that are preprocessed first.
            targets: Ground truth; needed for training.

        Raises:
            DataError: In training, targets are missing, differ in number from the images, or hold labels outside
                0..K-1.
        """
        batch = images if isinstance(images, ImageBatch) else self.preprocess(images)
        if self.training:
            return self.loss(batch, _stacked(targets, batch, self))
        return self.predict(batch)

    @abstractmethod
    def loss(self, batch: ImageBatch, targets: Targets) -> Losses:
        """The loss terms of a batch."""

    @abstractmethod
    def predict(self, batch: ImageBatch) -> Detections:
        """Detections in the pixels of the batch."""

    def on_progress(self, epoch: int, step: int) -> None:
        """Tells every part that listens how far training is; a detector among them tells its own."""
        for part in _told(self):
            listener = getattr(part, "on_progress", None)
            if listener is not None:
                listener(epoch, step)


def _stacked(
    targets: Targets | Sequence[Mapping[str, Any]] | None, batch: ImageBatch, detector: Detector
) -> Targets:
    """Targets as one structure, checked, on the batch's device."""
    if targets is None:
        raise DataError("training needs targets: model(images, targets); call model.eval() to predict")
    if not isinstance(targets, Targets):
        for index, image in enumerate(targets):
            _check_labels(index, image, detector.num_classes)
        targets = Targets.stack(targets)
    if len(targets) != len(batch):
        raise DataError(f"{len(batch)} images but targets for {len(targets)}")
    return targets.to(batch.pixels.device)


def _check_labels(index: int, image: Mapping[str, Any], num_classes: int) -> None:
    labels = torch.as_tensor(image.get("labels", ()))
    if labels.numel() and (int(labels.min()) < 0 or int(labels.max()) >= num_classes):
        found = f"{int(labels.min())}..{int(labels.max())}"
        raise DataError(f"targets[{index}]: labels should be 0..{num_classes - 1}, got {found}")


def _components(detector: Detector) -> Iterator[Component]:
    """The detector, its parts, and the blocks that a network has attached inside of itself; owners come first."""
    yield from (part for _, part in walk(detector))
    yield from (module for module in detector.modules() if isinstance(module, Component))


def _told(detector: Detector) -> Iterator[Component]:
    """Each component below a detector once, without what is below another detector."""
    seen = {id(detector)}
    for part in _components(detector):
        if id(part) not in seen:
            seen.add(id(part))
            if isinstance(part, Detector):
                seen.update(id(below) for below in _components(part))
            yield part
