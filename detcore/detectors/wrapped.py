"""The base of detectors around another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor

from detcore.component import Part, make, wired
from detcore.interfaces.detector import Detector
from detcore.structures import ClassMap, Detections, ImageBatch, ImageGeometry, Losses, Targets


class WrappedDetector(Detector):
    """A detector around another one, to which it hands on everything; subclasses define what they do otherwise.

    Its ``num_classes`` need not be stated: the detector knows.

    Args:
        num_classes: K; supplied by the owner or by the detector.
        detector: What is wrapped. A trained one is given as it is.
    """

    def __init__(
        self,
        *,
        num_classes: Annotated[int, Field(ge=1)] | None = wired(None),
        detector: Part[Detector],
    ) -> None:
        super().__init__()
        self.detector = make(detector, **({} if num_classes is None else {"num_classes": num_classes}))

    @property
    def num_classes(self) -> int:  # type: ignore[override]
        """K."""
        return len(self.class_map)

    @property
    def class_map(self) -> ClassMap:
        """Names and dataset ids of the classes, those of the detector."""
        return self.detector.class_map

    @class_map.setter
    def class_map(self, value: ClassMap) -> None:
        self.detector.class_map = value

    def preprocess(
        self, images: Sequence[Tensor], geometry: Sequence[ImageGeometry] | None = None
    ) -> ImageBatch:
        """See :class:`~detcore.interfaces.Detector`."""
        return self.detector.preprocess(images, geometry)

    def features(self, batch: ImageBatch) -> tuple[Tensor, ...]:
        """See :class:`~detcore.interfaces.Detector`."""
        return self.detector.features(batch)

    def loss(self, batch: ImageBatch, targets: Targets) -> Losses:
        """See :class:`~detcore.interfaces.Detector`."""
        return self.detector.loss(batch, targets)

    def predict(self, batch: ImageBatch) -> Detections:
        """See :class:`~detcore.interfaces.Detector`."""
        return self.detector.predict(batch)
