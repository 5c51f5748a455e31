"""The interface of post-processing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from detcore.component import Component
from detcore.structures import Detections, ImageBatch

#: Boxes [B, T, 4] of the candidates (prior [B, T], label [B, T]); called for the chosen ones only.
BoxDecoder = Callable[[Tensor, Tensor], Tensor]


class Postprocess(Component):
    """Scored candidates to detections: choice of the best, decoding, suppression of duplicates.

    Invariants: detections are sorted by descending score within an image; padded rows hold zeros; an image's
    detections do not depend on the others in the batch.
    """

    kind: ClassVar[str] = "postprocess"

    @abstractmethod
    def __call__(
        self,
        scores: Float[Tensor, "B N K"],
        decode: BoxDecoder,
        batch: ImageBatch,
        *,
        levels: Sequence[int] = (),
        factors: Float[Tensor, "B N"] | None = None,
        valid: Bool[Tensor, "B N"] | None = None,
    ) -> Detections:
        """The detections of a batch.

        Args:
            scores: Class probabilities per prior.
            decode: Gives boxes, clipped to the images, for (prior, label) indices [B, T].
            batch: The images.
            levels: Priors per level, where a cap applies per level; one level where empty.
            factors: Multiplied to the scores after the choice of candidates (centerness, IoU).
            valid: Priors that may be detected; all where None.
        """
