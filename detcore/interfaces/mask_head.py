"""The interface of mask heads of a second stage."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from detcore.component import Component
from detcore.structures import Losses


class MaskHead(Component, nn.Module):
    """Instance masks of regions, from their features.

    A mask head declares ``in_channels: int = wired()``, ``roi_feat_size: RoISize = wired()`` and
    ``num_classes: int = wired()``.

    Invariants: as for :class:`~detcore.interfaces.BBoxHead`; no row is given where there is no positive.
    """

    kind: ClassVar[str] = "mask_heads"

    @abstractmethod
    def forward(self, features: Float[Tensor, "P F h w"]) -> Float[Tensor, "P A H W"]:
        """Mask logits, for each of A = K classes, or A = 1 where the classes share them."""

    @abstractmethod
    def loss(
        self, logits: Float[Tensor, "P A H W"], labels: Int[Tensor, "P"], masks: Float[Tensor, "P H W"]
    ) -> Losses:
        """The loss terms of the positives.

        Args:
            logits: As predicted.
            labels: The class of each row, 0..K-1.
            masks: The mask of each row's ground truth inside its region, 0 or 1.
        """

    @abstractmethod
    def masks(self, logits: Float[Tensor, "P A H W"], labels: Int[Tensor, "P"]) -> Float[Tensor, "P H W"]:
        """The probability of each cell to belong to the object, for one class per row."""
