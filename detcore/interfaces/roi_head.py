"""The interface of RoI heads."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from detcore.component import Component
from detcore.structures import Detections, ImageBatch, Losses, Proposals, Targets


class RoIHead(Component, nn.Module):
    """The second stage: what is in each proposed region, and where exactly.

    An RoI head declares ``in_features: tuple[FeatureSpec, ...] = wired()`` and ``num_classes: int =
    wired()``. It is composed of parts: an extractor of region features, box and mask heads, assigners,
    samplers, post-processing.

    Invariants: ``loss`` gives every trainable parameter a finite gradient whatever the targets and the
    proposals, with none of either too; it needs ``targets.masks`` where it has a mask head; an image's
    detections do not depend on the others in the batch.
    """

    kind: ClassVar[str] = "roi_heads"

    @abstractmethod
    def loss(
        self, features: tuple[Tensor, ...], proposals: Proposals, targets: Targets, batch: ImageBatch
    ) -> Losses:
        """The loss terms of a batch.

        Args:
            features: The pyramid.
            proposals: Regions, padded to N; they carry no gradients.
            targets: Ground truth.
            batch: The images.
        """

    @abstractmethod
    def predict(self, features: tuple[Tensor, ...], proposals: Proposals, batch: ImageBatch) -> Detections:
        """Detections in the pixels of the batch, clipped to each image's true size."""
