"""The interface of dense heads."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from detcore.component import Component
from detcore.structures import Assignment, Detections, HeadOutput, ImageBatch, Losses, Proposals, Targets


class DenseHead(Component, nn.Module):
    """A prediction for every prior of a pyramid: one-stage detectors, and proposals for two-stage ones.

    A head declares ``in_features: tuple[FeatureSpec, ...] = wired()`` and ``num_classes: int = wired()``. It
    is a network plus parts (prior generator, assigner, sampler, coder, losses, post-processing) held as
    attributes.

    Invariants: ``loss`` gives every trainable parameter a finite gradient whatever the targets, with no
    ground truth too; an image's detections do not depend on the others in the batch.
    """

    kind: ClassVar[str] = "dense_heads"

    @abstractmethod
    def forward(
        self, features: tuple[Tensor, ...], batch: ImageBatch, targets: Targets | None = None
    ) -> HeadOutput:
        """The network alone. ``targets`` are for heads whose network sees them (denoising queries)."""

    @abstractmethod
    def match(self, output: HeadOutput, targets: Targets, batch: ImageBatch) -> Assignment:
        """The ground truth that each prior answers for."""

    @abstractmethod
    def loss(
        self, output: HeadOutput, targets: Targets, batch: ImageBatch, assignment: Assignment | None = None
    ) -> Losses:
        """The loss terms; ``assignment`` replaces the head's own :meth:`match`."""

    @abstractmethod
    def predict(self, output: HeadOutput, batch: ImageBatch) -> Detections:
        """Detections in the pixels of the batch, clipped to each image's true size."""


class ProposalHead(DenseHead):
    """A dense head whose predictions are regions for a second stage.

    Invariants: proposals carry no gradients; they are clipped to each image's true size and sorted by
    descending score; an image's proposals do not depend on the others in the batch.
    """

    @abstractmethod
    def propose(self, output: HeadOutput, batch: ImageBatch) -> Proposals:
        """Regions in the pixels of the batch; in training mode with the settings for training."""
