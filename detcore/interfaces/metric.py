"""The interface of metrics."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from detcore.component import Component
from detcore.interfaces.dataset import Dataset
from detcore.structures import ImageDetections


class Metric(Component):
    """An evaluation over a dataset: updated batch by batch, computed once at the end."""

    kind: ClassVar[str] = "metrics"

    @abstractmethod
    def start(self, dataset: Dataset) -> None:
        """Forgets everything and takes the ground truth from ``dataset``."""

    @abstractmethod
    def update(self, image_ids: Sequence[int], detections: Sequence[ImageDetections]) -> None:
        """Adds the detections of some images, in the pixels of their files."""

    @abstractmethod
    def compute(self) -> dict[str, float | None]:
        """The numbers by name; None where there is nothing to measure (no ground truth of a size)."""
