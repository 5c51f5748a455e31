"""The interface of transforms."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from detcore.component import Component
from detcore.interfaces.dataset import Example


class Transform(Component):
    """A change of an example that keeps image, boxes, masks and geometry aligned.

    Randomness comes from torch's global generator, which the owner seeds per (seed, epoch, index).
    """

    kind: ClassVar[str] = "transforms"

    @abstractmethod
    def __call__(self, example: Example) -> Example:
        """The changed example; the argument is left as it is."""
