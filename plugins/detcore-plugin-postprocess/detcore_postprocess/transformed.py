"""A detector that prepares its images itself, with a dataset's transforms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torchvision import tv_tensors

from detcore.component import Part, make, wired
from detcore.interfaces import Detector, Example, Transform
from detcore.structures import ClassMap, Detections, ImageBatch, ImageGeometry, Losses, Targets


class TransformedDetector(Detector):
    """In evaluation mode images go through transforms first, as those of the data that the detector was trained for.

    So detectors that want images of different sizes can look at the same ones (:class:`EnsembleDetector`), and
    the parts of an image are brought to a size that the detector knows (:class:`TiledDetector`). Boxes lead back
    to the images as they were given. In training nothing is transformed: there boxes have to follow, which is what
    the transforms of the data are for.

    Args:
        num_classes: K; supplied by the owner or by the detector.
        detector: What predicts.
        transforms: Applied in this order, on the CPU.
    """

    def __init__(
        self,
        *,
        num_classes: Annotated[int, Field(ge=1)] | None = wired(None),
        detector: Part[Detector],
        transforms: tuple[Part[Transform], ...] = (),
    ) -> None:
        super().__init__()
        self.detector = make(detector, **({} if num_classes is None else {"num_classes": num_classes}))
        self.transforms = tuple(make(transform) for transform in transforms)

    @property
    def num_classes(self) -> int:
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
        """See :class:`~detcore.interfaces.Detector`; in evaluation mode with the transforms before."""
        if self.training or not self.transforms:
            return self.detector.preprocess(images, geometry)
        ways = [_untouched(image) for image in images] if geometry is None else geometry
        examples = [self._transformed(*one) for one in zip(images, ways, strict=True)]
        return self.detector.preprocess(
            [example["image"].as_subclass(Tensor) for example in examples],
            [example["geometry"] for example in examples],
        )

    def features(self, batch: ImageBatch) -> tuple[Tensor, ...]:
        """See :class:`~detcore.interfaces.Detector`."""
        return self.detector.features(batch)

    def forward(
        self,
        images: ImageBatch | Sequence[Tensor],
        targets: Targets | Sequence[Mapping[str, Any]] | None = None,
    ) -> Losses | Detections:
        """See :class:`~detcore.interfaces.Detector`."""
        batch = images if isinstance(images, ImageBatch) else self.preprocess(images)
        result: Losses | Detections = self.detector(batch, targets)
        return result

    def loss(self, batch: ImageBatch, targets: Targets) -> Losses:
        """See :class:`~detcore.interfaces.Detector`."""
        return self.detector.loss(batch, targets)

    def predict(self, batch: ImageBatch) -> Detections:
        """See :class:`~detcore.interfaces.Detector`."""
        return self.detector.predict(batch)

    def on_progress(self, epoch: int, step: int) -> None:
        """Tells the detector how far training is."""
        listener = getattr(self.detector, "on_progress", None)
        if listener is not None:
            listener(epoch, step)

    def _transformed(self, image: Tensor, way: ImageGeometry) -> Example:
        size = (int(image.shape[-2]), int(image.shape[-1]))
        example = Example(
            image=tv_tensors.Image(image.cpu()),
            boxes=tv_tensors.BoundingBoxes(torch.zeros(0, 4), format="XYXY", canvas_size=size),
            labels=torch.zeros(0, dtype=torch.int64),
            ignore=torch.zeros(0, dtype=torch.bool),
            image_id=0,
            file="",
            geometry=way,
        )
        for transform in self.transforms:
            example = transform(example)
        return example


def _untouched(image: Tensor) -> ImageGeometry:
    return ImageGeometry((int(image.shape[-2]), int(image.shape[-1])))
