"""Assignment by regions around the centre of a ground truth, on its level and beside it."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from detcore.boxes import area
from detcore.interfaces import Assigner
from detcore.structures import (
    IGNORED,
    NEGATIVE,
    POSITIVE,
    Assignment,
    ImageBatch,
    Predictions,
    PriorLevel,
    Priors,
    Targets,
)
from detcore_assigners.levels import levels_of
from detcore_assigners.overlaps import slices
from detcore_assigners.regions import ignored_priors

Fraction = Annotated[float, Field(ge=0, le=1)]


class RegionAssigner(Assigner):
    """The centre of a ground truth is positive on the level of its size; around it, and beside it, is ignored.

    For each ground truth:

    1. its level is the one whose priors are nearest to it in size (root of the area; rounded in log2, sizes
       doubling from level to level, beginning with the first prior);
    2. on its level, priors with their centre in its centre region are positive;
    3. priors with their centre in its ignore region are ignored, on its level and on those next to it.

    The regions are its box times ``center_ratio`` and ``ignore_ratio`` about its centre, rounded to whole cells
    of the level (halves to even) and clipped to its map; a centre at the edge is inside. All other priors are
    negative. Positive goes before ignored, and ignored before negative; a prior in the centre region of
    several ground truths goes to the smallest (of equal areas to the first). ``quality`` is 1 for positives,
    else 0. Priors outside of the image (``priors.valid``) and in regions to ignore take no part: state -1.

    Wang et al., "Region Proposal by Guided Anchoring" (arXiv:1901.03278); used by Vu et al., "Cascade RPN"
    (arXiv:1909.06720).

    Args:
        center_ratio: Factor of width and height for the centre region.
        ignore_ratio: Factor of width and height for the ignore region.
        ignore_iof_thr: Priors with more than this part inside a region to ignore take no part (the reference
            does not know such regions). None or -1: they have no effect, what they hold is background.
        sequential: True lets ground truths take effect one after another, as in the reference: each makes
            its ignore region ignored and its centre region positive on its level, whatever was there, and
            the ignore regions on the other levels come last.
    """

    needs = frozenset({"levels"})

    def __init__(
        self,
        *,
        center_ratio: Fraction = 0.2,
        ignore_ratio: Fraction = 0.5,
        ignore_iof_thr: Annotated[float, Field(gt=0, le=1)] | Literal[-1] | None = 0.5,
        sequential: bool = False,
    ) -> None:
        self.center_ratio = center_ratio
        self.ignore_ratio = ignore_ratio
        self.ignore_iof_thr = None if ignore_iof_thr == -1 else ignore_iof_thr
        self.sequential = sequential

    @torch.no_grad()
    def assign(
        self,
        priors: Priors,
        targets: Targets,
        predictions: Predictions | None = None,
        batch: ImageBatch | None = None,
    ) -> Assignment:
        """See :meth:`detcore.interfaces.Assigner.assign`; reads boxes and levels.

        Raises:
            ValueError: The priors have no levels, or levels of other counts.
        """
        out = ignored_priors(priors, targets, self.ignore_iof_thr)
        if priors.valid is not None:
            out = out | ~priors.valid
        # boxes of one pixel in place of padding: their logarithm is finite, and they are on no level
        unit = targets.boxes.new_tensor([0.0, 0.0, 1.0, 1.0]).float()
        gts = torch.where(targets.matchable[..., None], targets.boxes.float(), unit)
        own = _levels_by_size(priors, gts).masked_fill(~targets.matchable, -9)
        gt_index = torch.zeros(out.shape, dtype=torch.int64, device=out.device)
        state = torch.full_like(gt_index, NEGATIVE, dtype=torch.int8)
        for number, (level, here) in enumerate(levels_of(priors, "RegionAssigner")):
            centers = _centers(priors.boxes[..., here, :].float(), level)
            inner, outer = (
                self._region(gts, ratio, level) for ratio in (self.center_ratio, self.ignore_ratio)
            )
            for start, stop in slices(level.count, own.numel()):
                some, place = centers[..., start:stop, :], slice(here.start + start, here.start + stop)
                central, around = _within(inner, some), _within(outer, some)
                beside = (around & ((own - number).abs() == 1)[..., None]).any(dim=1)
                at = (own == number)[..., None]
                settle = self._last if self.sequential else self._smallest
                gt_index[:, place], state[:, place] = settle(gts, central & at, around & at, beside)
        return _assignment(gt_index, state, out)

    def _region(self, gts: Float[Tensor, "B M 4"], ratio: float, level: PriorLevel) -> Float[Tensor, "B M 4"]:
        """The boxes times ``ratio``, in cells of the level."""
        margin = (1 - ratio) / 2
        stride = gts.new_tensor([*level.stride, *level.stride])
        cells = gts / stride
        low, high = cells[..., :2], cells[..., 2:]
        corners = ((1 - margin) * low + margin * high, margin * low + (1 - margin) * high)
        limit = gts.new_tensor([level.w, level.h, level.w, level.h])
        return torch.minimum(torch.cat(corners, dim=-1).round().clamp(min=0), limit)

    def _smallest(
        self,
        gts: Float[Tensor, "B M 4"],
        central: Bool[Tensor, "B M n"],
        around: Bool[Tensor, "B M n"],
        beside: Bool[Tensor, "B n"],
    ) -> tuple[Int[Tensor, "B n"], Tensor]:
        """Ground truth and state: positive before ignored, the smallest ground truth before others."""
        size = torch.where(central, area(gts)[..., None], torch.inf)
        smallest, row = size.min(dim=1)
        positive = smallest < torch.inf
        ignored = around.any(dim=1) | beside
        return row, torch.where(positive, POSITIVE, torch.where(ignored, IGNORED, NEGATIVE)).to(torch.int8)

    def _last(
        self,
        gts: Float[Tensor, "B M 4"],
        central: Bool[Tensor, "B M n"],
        around: Bool[Tensor, "B M n"],
        beside: Bool[Tensor, "B n"],
    ) -> tuple[Int[Tensor, "B n"], Tensor]:
        """Ground truth and state: the last ground truth decides, the other levels over all."""
        order = torch.arange(gts.shape[1], device=gts.device).float()[:, None]
        positive = torch.where(central, order, -1.0).amax(dim=1)
        ignored = torch.where(around, order, -1.0).amax(dim=1)
        state = torch.where(positive >= 0, POSITIVE, NEGATIVE)
        state = torch.where((ignored > positive) | beside, IGNORED, state)
        return positive.clamp(min=0).long(), state.to(torch.int8)


def _assignment(gt_index: Int[Tensor, "B N"], state: Tensor, out: Bool[Tensor, "B N"]) -> Assignment:
    state = state.masked_fill(out, IGNORED)
    positive = state == POSITIVE
    return Assignment(gt_index.masked_fill(~positive, 0), state, positive.float())


def _levels_by_size(priors: Priors, gts: Float[Tensor, "B M 4"]) -> Int[Tensor, "B M"]:
    """The level of each ground truth."""
    if not len(priors):
        return torch.zeros(gts.shape[:2], dtype=torch.int64, device=gts.device)
    first = area(priors.boxes[..., 0, :].float()).sqrt().reshape(-1, 1)
    size = area(gts).clamp(min=0).sqrt()
    level = (size.log2() - first.log2() + 0.5).floor()
    return level.clamp(min=0, max=len(priors.levels) - 1).long()


def _centers(boxes: Float[Tensor, "*B n 4"], level: PriorLevel) -> Float[Tensor, "*B n 2"]:
    """Centres in cells of the level."""
    cells = boxes / boxes.new_tensor([*level.stride, *level.stride])
    return (cells[..., :2] + cells[..., 2:]) * 0.5


def _within(regions: Float[Tensor, "B M 4"], points: Float[Tensor, "*B n 2"]) -> Bool[Tensor, "B M n"]:
    """Whether points are inside of regions or at their edge."""
    x, y = points.unsqueeze(-3).unbind(-1)
    x1, y1, x2, y2 = regions[..., None].unbind(-2)
    return (x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)
