"""A detector that prepares its images itself, with a dataset's transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torchvision import tv_tensors

from detcore.component import Part, make, wired
from detcore.detectors import WrappedDetector
from detcore.interfaces import Detector, Example, Transform
from detcore.structures import ImageBatch, ImageGeometry


class TransformedDetector(WrappedDetector):
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
        super().__init__(num_classes=num_classes, detector=detector)
        self.transforms = tuple(make(transform) for transform in transforms)

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
