"""The one-stage detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor

from detcore.component import Part, make, wired
from detcore.detectors.preprocessor import ImagePreprocessor
from detcore.interfaces.backbone import Backbone
from detcore.interfaces.dense_head import DenseHead
from detcore.interfaces.detector import Detector
from detcore.interfaces.neck import Neck
from detcore.interfaces.preprocessor import Preprocessor
from detcore.structures import Detections, ImageBatch, ImageGeometry, Losses, Targets


class SingleStageDetector(Detector):
    """Preprocessor, backbone, neck and one dense head: RetinaNet, ATSS, FCOS, SSD, ...

    Args:
        num_classes: K; supplied by the class map of the data when trained from a file.
        backbone: Images to features.
        neck: Features to the pyramid that the head sees; the backbone's own where None.
        head: Predictions per prior; gets the pyramid's channels and strides and the number of classes.
        preprocessor: Normalises and pads images.
    """

    def __init__(
        self,
        *,
        num_classes: Annotated[int, Field(ge=1)] = wired(),
        backbone: Part[Backbone],
        neck: Part[Neck] | None = None,
        head: Part[DenseHead],
        preprocessor: Part[Preprocessor] = ImagePreprocessor.spec(),
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.preprocessor = make(preprocessor)
        self.backbone = make(backbone)
        self.neck = make(neck, in_features=self.backbone.out_features) if neck is not None else None
        pyramid = (self.neck or self.backbone).out_features
        self.head = make(head, in_features=pyramid, num_classes=num_classes)

    def preprocess(
        self, images: Sequence[Tensor], geometry: Sequence[ImageGeometry] | None = None
    ) -> ImageBatch:
        """See :class:`~detcore.interfaces.Detector`."""
        return self.preprocessor(images, geometry)  # type: ignore[no-any-return]

    def features(self, batch: ImageBatch) -> tuple[Tensor, ...]:
        """See :class:`~detcore.interfaces.Detector`."""
        pyramid = self.backbone(batch.pixels)
        return pyramid if self.neck is None else self.neck(pyramid)  # type: ignore[no-any-return]

    def loss(self, batch: ImageBatch, targets: Targets) -> Losses:
        """See :class:`~detcore.interfaces.Detector`."""
        output = self.head(self.features(batch), batch, targets)
        return self.head.loss(output, targets, batch)

    def predict(self, batch: ImageBatch) -> Detections:
        """See :class:`~detcore.interfaces.Detector`."""
        return self.head.predict(self.head(self.features(batch), batch), batch)
