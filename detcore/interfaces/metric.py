"""The interface of metrics."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
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

    def per_class(self) -> Mapping[str, Mapping[str, float | None]]:
        """The numbers of each class by its name; empty where the metric does not tell them apart."""
        return {}

    def reasons(self) -> Mapping[str, str]:
        """Why numbers are None, by their names in :meth:`compute` (of a class: ``NUMBER/CLASS``).

        Each is a text such as "n/a: no ground truth of this size". A metric may leave this out.
        """
        return {}
