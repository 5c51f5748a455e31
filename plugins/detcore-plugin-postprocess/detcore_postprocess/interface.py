"""The interface of suppression: which boxes stay, and with what score."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

from detcore.component import Component


class Suppressed(NamedTuple):
    """What suppression leaves.

    Args:
        scores: The scores, lowered where the method lowers them; of no meaning where a row is not kept.
        kept: Which rows stay.
    """

    scores: Float[Tensor, "B T"]
    kept: Bool[Tensor, "B T"]


class Suppression(Component):
    """Drops or weakens boxes that repeat a better one of their image and group (class, level, ...).

    A suppression with a threshold declares ``iou_threshold: ... = wired(..., may_override=True)``: the owner
    (:class:`~detcore_postprocess.NMSPostprocess`) supplies its own where the part states none.

    Invariants: boxes of different images or groups do not meet; scores are never raised; rows that are not
    valid are not kept and change nothing; an image's result does not depend on the others in the batch.
    """

    kind: ClassVar[str] = "suppressions"

    @abstractmethod
    def __call__(
        self,
        boxes: Float[Tensor, "B T 4"],
        scores: Float[Tensor, "B T"],
        groups: Int[Tensor, "B T"],
        *,
        valid: Bool[Tensor, "B T"] | None = None,
        most: int | None = None,
    ) -> Suppressed:
        """What stays.

        Args:
            boxes: xyxy in pixels.
            scores: Not negative.
            groups: Any integers; they mean something within an image only.
            valid: Rows that take part; all where None.
            most: The caller looks at no more than this many of an image's best results, so that others of a
                group need not be worked out.
        """
