"""The interface of necks."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from detcore.component import Component
from detcore.structures import FeatureSpec


class Neck(Component, nn.Module):
    """A pyramid of features to another pyramid.

    A neck declares ``in_features: tuple[FeatureSpec, ...] = wired()``. Its output is described by
    ``out_features`` under the invariants of :class:`~detcore.interfaces.Backbone`.
    """

    kind: ClassVar[str] = "necks"

    #: Channels and strides of the output, known once constructed.
    out_features: tuple[FeatureSpec, ...]

    @abstractmethod
    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """One feature map per level of ``out_features``."""
