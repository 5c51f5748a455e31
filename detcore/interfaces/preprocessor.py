"""The interface of preprocessors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from detcore.component import Component
from detcore.structures import ImageBatch, ImageGeometry


class Preprocessor(Component, nn.Module):
    """Images as decoded to the batch that a network sees; runs inside the model, on its device."""

    kind: ClassVar[str] = "preprocessors"

    @abstractmethod
    def forward(
        self, images: Sequence[Tensor], geometry: Sequence[ImageGeometry] | None = None
    ) -> ImageBatch:
        """Normalises and pads.

        Args:
            images: uint8 (0..255) or float (0..1) [3, H, W] RGB, of any sizes.
            geometry: The way back to the files; identity where omitted.
        """
