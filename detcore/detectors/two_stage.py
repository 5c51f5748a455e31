"""The two-stage detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from detcore.component import Part, make, wired
from detcore.detectors.preprocessor import ImagePreprocessor
from detcore.interfaces.backbone import Backbone
from detcore.interfaces.dense_head import ProposalHead
from detcore.interfaces.detector import Detector
from detcore.interfaces.neck import Neck
from detcore.interfaces.preprocessor import Preprocessor
from detcore.interfaces.roi_head import RoIHead
from detcore.structures import Detections, ImageBatch, ImageGeometry, Losses, Proposals, Targets


class TwoStageDetector(Detector):
    """Preprocessor, backbone, neck, a head that proposes regions and one that looks into them.

    Faster R-CNN (Ren et al., arXiv:1506.01497), Mask R-CNN (He et al., arXiv:1703.06870), Cascade R-CNN (Cai
    and Vasconcelos, arXiv:1712.00726), ...

    Args:
        num_classes: K; supplied by the class map of the data when trained from a file.
        backbone: Images to features.
        neck: Features to the pyramid that the heads see; the backbone's own where None.
        rpn_head: Pyramid to proposals; gets the pyramid's channels and strides, and 1 as its number of
            classes.
        roi_head: Proposals to detections; gets the pyramid's channels and strides and the number of classes.
        preprocessor: Normalises and pads images.
    """

    def __init__(
        self,
        *,
        num_classes: Annotated[int, Field(ge=1)] = wired(),
        backbone: Part[Backbone],
        neck: Part[Neck] | None = None,
        rpn_head: Part[ProposalHead],
        roi_head: Part[RoIHead],
        preprocessor: Part[Preprocessor] = ImagePreprocessor.spec(),
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.preprocessor = make(preprocessor)
        self.backbone = make(backbone)
        self.neck = make(neck, in_features=self.backbone.out_features) if neck is not None else None
        pyramid = (self.neck or self.backbone).out_features
        self.rpn_head = make(rpn_head, in_features=pyramid, num_classes=1)
        self.roi_head = make(roi_head, in_features=pyramid, num_classes=num_classes)

    def preprocess(
        self, images: Sequence[Tensor], geometry: Sequence[ImageGeometry] | None = None
    ) -> ImageBatch:
        """See :class:`~detcore.interfaces.Detector`."""
        return self.preprocessor(images, geometry)  # type: ignore[no-any-return]

    def features(self, batch: ImageBatch) -> tuple[Tensor, ...]:
        """See :class:`~detcore.interfaces.Detector`."""
        pyramid = self.backbone(batch.pixels)
        return pyramid if self.neck is None else self.neck(pyramid)  # type: ignore[no-any-return]

    def propose(self, batch: ImageBatch) -> Proposals:
        """The regions that the first stage proposes."""
        return self.rpn_head.propose(self.rpn_head(self.features(batch), batch), batch)

    def loss(self, batch: ImageBatch, targets: Targets) -> Losses:
        """The terms of both stages; where their names collide, those of the first get the prefix ``rpn_``."""
        features = self.features(batch)
        one_class = _class_agnostic(targets)
        output = self.rpn_head(features, batch, one_class)
        first = self.rpn_head.loss(output, one_class, batch)
        proposals = self.rpn_head.propose(output, batch)
        second = self.roi_head.loss(features, proposals, targets, batch)
        return Losses(_merged(first, second), _merged(first.metrics, second.metrics))

    def predict(self, batch: ImageBatch) -> Detections:
        """See :class:`~detcore.interfaces.Detector`."""
        features = self.features(batch)
        proposals = self.rpn_head.propose(self.rpn_head(features, batch), batch)
        return self.roi_head.predict(features, proposals, batch)


def _class_agnostic(targets: Targets) -> Targets:
    """The same objects, all of class 0."""
    return targets.replace(labels=torch.zeros_like(targets.labels))


def _merged(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of both; the names of ``first`` that ``second`` has too get the prefix ``rpn_``."""
    return {**{f"rpn_{name}" if name in second else name: x for name, x in first.items()}, **second}
