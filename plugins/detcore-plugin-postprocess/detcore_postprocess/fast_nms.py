"""Fast NMS: suppression in one step."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from detcore.component import wired
from detcore_postprocess.interface import Suppressed, Suppression
from detcore_postprocess.lanes import PAIRED_CELLS, better_overlaps, suppress_in_lanes

Fraction = Annotated[float, Field(ge=0, le=1)]


class FastNMS(Suppression):
    """A box is dropped where any better one of its group overlaps it, even one that is dropped itself.

    That needs no order of steps, and drops slightly more than NMS. Of equal scores the first counts as better.

    Bolya et al., "YOLACT: Real-time Instance Segmentation" (arXiv:1904.02689).

    Args:
        iou_threshold: Largest IoU, itself included, with a better box. Supplied by the owner where it is not
            stated.
        top_k: Most boxes of a group that take part; all where None.
    """

    def __init__(
        self,
        *,
        iou_threshold: Fraction = wired(0.5, may_override=True),
        top_k: Annotated[int, Field(ge=1)] | None = 200,
    ) -> None:
        self.iou_threshold = iou_threshold
        self.top_k = top_k

    @torch.no_grad()
    def __call__(
        self,
        boxes: Float[Tensor, "B T 4"],
        scores: Float[Tensor, "B T"],
        groups: Int[Tensor, "B T"],
        *,
        valid: Bool[Tensor, "B T"] | None = None,
        most: int | None = None,
    ) -> Suppressed:
        """See :class:`Suppression`; scores stay as they are."""
        left = suppress_in_lanes(
            self._drop, boxes, scores, groups, valid, cells=PAIRED_CELLS, longest=self.top_k
        )
        return left._replace(scores=scores)

    def _drop(self, boxes: Tensor, scores: Tensor, groups: Tensor | None, valid: Tensor) -> Suppressed:
        worst = torch.zeros_like(scores)
        for rows, overlaps in better_overlaps(boxes, groups):
            worst[:, rows] = overlaps.amax(1)
        kept = valid & (worst <= self.iou_threshold)
        if groups is not None and self.top_k is not None:
            kept &= _rank(groups) < self.top_k
        return Suppressed(scores, kept)


def _rank(groups: Int[Tensor, "R L"]) -> Int[Tensor, "R L"]:
    """How many of the same group come before each box in its lane."""
    order = groups.argsort(dim=1, stable=True)
    ordered = groups.gather(1, order)
    rank = torch.arange(groups.shape[1], device=groups.device) - torch.searchsorted(ordered, ordered)
    return torch.zeros_like(groups).scatter(1, order, rank)
