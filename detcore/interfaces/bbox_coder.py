"""The interface of box coders."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from detcore.component import Component
from detcore.structures import Encoded, Priors


class BBoxCoder(Component):
    """Boxes relative to priors, as a network regresses them.

    Invariants: ``decode(priors, encode(priors, boxes).values) == boxes`` for boxes of positive size near their
    prior; leading dimensions broadcast; empty input gives empty output of the right shape.
    """

    kind: ClassVar[str] = "bbox_coders"

    #: Values that the network predicts per box (D).
    code_size: int = 4
    #: Values that a target consists of; differs from ``code_size`` for distributions and buckets.
    target_size: int = 4

    @abstractmethod
    def encode(self, priors: Priors, boxes: Float[Tensor, "*S 4"]) -> Encoded:
        """The codes of ``boxes`` [..., 4] relative to ``priors`` [..., 4], as [..., target_size]."""

    @abstractmethod
    def decode(
        self, priors: Priors, codes: Float[Tensor, "*S D"], sizes: Int[Tensor, "*S 2"] | None = None
    ) -> Float[Tensor, "*S 4"]:
        """The boxes xyxy in pixels that ``codes`` mean.

        Args:
            priors: Their reference boxes.
            codes: [..., code_size].
            sizes: (h, w) to clip to, broadcastable to [..., 2]; [B, 2] means one per image of codes [B, N, D]. No
                clipping where None.
        """
