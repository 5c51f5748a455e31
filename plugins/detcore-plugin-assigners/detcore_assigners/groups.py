"""The search over groups of boxes: what a prior overlaps, any of its boxes does."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detcore_assigners.overlaps import Best, OverlapSearch


class GroupSearch:
    """A search over N priors, each of which stands for A boxes: its overlap is that of the best of them.

    Args:
        boxes: The search over the N x A boxes, those of a prior together.
        size: A, at least 1.
    """

    def __init__(self, boxes: OverlapSearch, size: int) -> None:
        self.boxes, self.size = boxes, size

    def best(self) -> Best:
        """See :class:`~detcore_assigners.overlaps.OverlapSearch`."""
        iou, row, row_iou = self.boxes.best()
        iou, row = self._grouped(iou), self._grouped(row)
        best = iou.amax(dim=2, keepdim=True)
        last = torch.iinfo(row.dtype).max
        first = row.masked_fill(iou < best, last).amin(dim=2)
        return Best(best.squeeze(2), first, row_iou)

    def last_attaining(self, wanted: Float[Tensor, "B M"], rows: Bool[Tensor, "B M"]) -> Int[Tensor, "B N"]:
        """See :class:`~detcore_assigners.overlaps.OverlapSearch`."""
        return self._grouped(self.boxes.last_attaining(wanted, rows)).amax(dim=2)

    def first_priors(self, wanted: Float[Tensor, "B M"]) -> Int[Tensor, "B M"]:
        """See :class:`~detcore_assigners.overlaps.OverlapSearch`."""
        return self.boxes.first_priors(wanted) // self.size

    def _grouped(self, values: Tensor) -> Tensor:
        """Values [B, N x A] as [B, N, A]."""
        return values.reshape(len(values), values.shape[1] // self.size, self.size)
