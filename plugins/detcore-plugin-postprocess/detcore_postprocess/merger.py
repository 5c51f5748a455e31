"""The interface of merging: one set of detections from those of several views of the same images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from detcore.component import Component
from detcore.structures import Detections


class Merger(Component):
    """Puts together what was found in several views of the same images: versions, tiles, or models.

    Invariants: the result is in descending order of scores, with zeros in padded rows; rows that are not valid
    change nothing; an image's result does not depend on the others in the batch; a view without any detection
    adds none; the order of equal views does not matter.
    """

    kind: ClassVar[str] = "mergers"

    @abstractmethod
    def __call__(
        self, views: Sequence[Detections], *, max_per_img: int, weights: Sequence[float] | None = None
    ) -> Detections:
        """The detections of all views, each object once.

        Args:
            views: By view, of the same images in the same pixels and with the same labels.
            max_per_img: Rows of the result per image (Q), padded where there are fewer.
            weights: How much each view counts, positive; the same for all where None.

        Raises:
            ConfigError: There is no view, or not one positive weight for each.
        """
