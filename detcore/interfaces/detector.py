"""The interface of detectors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from detcore.component import Component
from detcore.structures import ClassMap, Detections, ImageBatch, ImageGeometry, Losses, Targets


class Detector(Component, nn.Module):
    """A whole model: images in, losses or detections out. A plain module, at home in anybody's training loop.

    A detector declares ``num_classes: int = wired()``.
    """

    kind: ClassVar[str] = "detectors"

    #: Names and dataset ids of the classes; its length is ``num_classes``.
    class_map: ClassMap

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

    @abstractmethod
    def forward(
        self,
        images: ImageBatch | Sequence[Tensor],
        targets: Targets | Sequence[Mapping[str, Any]] | None = None,
    ) -> Losses | Detections:
        """Losses in training mode, detections in evaluation mode; the one entry, also for DDP.

        Args:
            images: A batch, or uint8 images [3, H, W] that are preprocessed first.
            targets: Ground truth; needed for training.
        """

    @abstractmethod
    def loss(self, batch: ImageBatch, targets: Targets) -> Losses:
        """The loss terms of a batch."""

    @abstractmethod
    def predict(self, batch: ImageBatch) -> Detections:
        """Detections in the pixels of the batch."""
