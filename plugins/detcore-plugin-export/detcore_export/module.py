"""The module that is exported: images in, detections out, as plain tensors."""

from __future__ import annotations

from typing import Protocol, cast, runtime_checkable

from jaxtyping import Int, UInt8
from torch import Tensor, nn

from detcore.interfaces import Detector
from detcore.structures import ImageBatch
from detcore_export.errors import NotExportableError


@runtime_checkable
class StackingPreprocessor(Protocol):
    """A preprocessor that takes images as one tensor, as :class:`detcore.detectors.ImagePreprocessor` does."""

    def stacked(self, images: Tensor, sizes: Tensor | None = None) -> ImageBatch:
        """Normalises and pads, with tensor operations only."""


class ExportModule(nn.Module):
    """Preprocessing, detector and post-processing of images that are one tensor.

    Args:
        detector: In evaluation mode.

    Raises:
        NotExportableError: Its preprocessor cannot take images as one tensor.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        preprocessor = getattr(detector, "preprocessor", None)
        if not isinstance(preprocessor, StackingPreprocessor):
            what = (
                "no preprocessor"
                if preprocessor is None
                else f"the preprocessor {type(preprocessor).__name__}"
            )
            raise NotExportableError(
                f"{type(detector).__name__} has {what} with a method stacked(images, sizes), which exported "
                "detectors begin with; see detcore.detectors.ImagePreprocessor.stacked"
            )
        self.detector = detector

    def forward(
        self, images: UInt8[Tensor, "B 3 H W"], sizes: Int[Tensor, "B 2"] | None = None
    ) -> dict[str, Tensor]:
        """``boxes`` [B, Q, 4] in pixels of ``images``, ``scores``, ``labels``, ``valid`` [B, Q], and maybe ``masks``.

        Args:
            images: RGB, 0..255.
            sizes: True (h, w) of each image, or None.
        """
        preprocessor = cast(StackingPreprocessor, self.detector.preprocessor)
        found = self.detector.predict(preprocessor.stacked(images, sizes))
        outputs = {
            "boxes": found.boxes.float(),
            "scores": found.scores.float(),
            "labels": found.labels,
            "valid": found.valid,
        }
        if found.masks is not None:
            outputs["masks"] = found.masks.float()
        return outputs
