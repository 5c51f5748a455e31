"""Assignment of the priors in the cell of a ground truth's centre."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from detcore.boxes import aligned_overlap
from detcore.interfaces import Assigner
from detcore.structures import (
    IGNORED,
    NEGATIVE,
    POSITIVE,
    Assignment,
    ImageBatch,
    Predictions,
    Priors,
    Targets,
)
from detcore_assigners.choice import gathered, resolve
from detcore_assigners.levels import levels_of
from detcore_assigners.regions import ignored_priors
from detcore_assigners.tiles import search_of

Fraction = Annotated[float, Field(ge=0, le=1)]


class _Matches(NamedTuple):
    """What responsible priors answer for.

    Args:
        iou: Best IoU of a responsible prior with a ground truth that it may answer for, else 0.
        row: The first ground truth of that IoU.
        claimant: The ground truth that takes the prior as its best, or -1.
    """

    iou: Float[Tensor, "B N"]
    row: Int[Tensor, "B N"]
    claimant: Int[Tensor, "B N"]


class GridAssigner(Assigner):
    """Only the priors of the cell that holds a ground truth's centre answer for it, one cell in every level.

    1. A prior is negative where its best IoU with all ground truths is at most ``neg_iou_thr`` (within the range
       ``neg_iou_thr``), ignored where nothing below applies.
    2. A prior is positive for the ground truth of highest IoU among those whose centre is in its cell, if that is
       above ``pos_iou_thr``; of equal ones the first wins.
    3. A ground truth takes the prior of its own cells that it overlaps best, if by more than ``min_pos_iou``; of
       several claimants the one of highest IoU wins, of equal ones the first.

    A centre outside of a level's grid has no cell there. ``quality`` is the IoU of step 2, 0 in other cells.
    Priors outside of the image (``priors.valid``) and in regions to ignore take no part: state -1.

    Redmon and Farhadi, "YOLOv3" (arXiv:1804.02767).

    Args:
        pos_iou_thr: IoU above which a prior is positive.
        neg_iou_thr: IoU up to which it is negative; (low, high) means above low, up to high.
        min_pos_iou: IoU above which a ground truth takes its best prior.
        gt_max_assign_all: Whether it takes all priors that attain its best IoU, or the first one.
        ignore_iof_thr: Priors with more than this part inside a region to ignore take no part. None or -1:
            regions to ignore have no effect, as in the reference; what they hold is background.
        own_cell: False lets the priors in the cell of any ground truth answer for every ground truth, in steps 2
            and 3, and the last claimant win, as the reference does.

    Raises:
        ConfigError: ``neg_iou_thr`` is not in order, or reaches above ``pos_iou_thr``.
    """

    needs = frozenset({"levels"})

    def __init__(
        self,
        *,
        pos_iou_thr: Fraction,
        neg_iou_thr: Fraction | tuple[Fraction, Fraction],
        min_pos_iou: Fraction = 0.0,
        gt_max_assign_all: bool = True,
        ignore_iof_thr: Annotated[float, Field(gt=0, le=1)] | Literal[-1] | None = 0.5,
        own_cell: bool = True,
    ) -> None:
        # what overlaps nothing is negative, unless a range begins above
        low, high = neg_iou_thr if isinstance(neg_iou_thr, tuple) else (-1.0, neg_iou_thr)
        if not low <= high <= pos_iou_thr:
            raise ValueError(
                f"neg_iou_thr should be (low, high) with low <= high <= pos_iou_thr ({pos_iou_thr}), got "
                f"{neg_iou_thr}; lower it, or raise pos_iou_thr"
            )
        self.pos_iou_thr = pos_iou_thr
        self.neg_iou_range = (low, high)
        self.min_pos_iou = min_pos_iou
        self.gt_max_assign_all = gt_max_assign_all
        self.ignore_iof_thr = None if ignore_iof_thr == -1 else ignore_iof_thr
        self.own_cell = own_cell

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
        matchable = targets.matchable
        part = ~ignored_priors(priors, targets, self.ignore_iof_thr)
        if priors.valid is not None:
            part = part & priors.valid
        # rows that take no part become boxes of zeros, which overlap with nothing
        rows = torch.where(matchable[..., None], targets.boxes.float(), 0.0)
        index, inside = cells(priors, targets)
        inside = inside & matchable[..., None]
        match = self._in_own_cell if self.own_cell else self._in_any_cell
        iou, row, claimant = match(priors, rows, part, index, inside)
        best = search_of(rows, priors.boxes.float(), priors.levels, part).best().prior_iou
        low, high = self.neg_iou_range
        negative = (best > low) & (best <= high) | ~matchable.any(dim=1, keepdim=True)
        positive = ((iou > self.pos_iou_thr) | (claimant >= 0)) & part
        gt_index = torch.where(claimant >= 0, claimant, row).masked_fill(~positive, 0)
        state = torch.full_like(gt_index, IGNORED, dtype=torch.int8)
        state = state.masked_fill(negative & part, NEGATIVE).masked_fill(positive, POSITIVE)
        return Assignment(gt_index, state, iou)

    def _in_own_cell(
        self,
        priors: Priors,
        rows: Float[Tensor, "B M 4"],
        part: Bool[Tensor, "B N"],
        index: Int[Tensor, "B M k"],
        inside: Bool[Tensor, "B M k"],
    ) -> _Matches:
        """Each ground truth looks at the priors of its own cells."""
        own = priors.gather(index.flatten(1)).boxes.float().reshape(*index.shape, 4)
        iou = aligned_overlap(own, rows[:, :, None]).masked_fill(~gathered(part, index), 0.0)
        iou = iou.masked_fill(~inside, -1.0)
        count = len(priors)
        row, quality, _ = resolve(index, iou, inside, count)
        best = F.pad(iou, (0, 1), value=-1.0).amax(dim=2, keepdim=True)  # there may be no priors at all
        claims = inside & (iou == best) & (iou > self.min_pos_iou)
        if not self.gt_max_assign_all:
            first = F.pad(index.masked_fill(~claims, count), (0, 1), value=count).amin(dim=2, keepdim=True)
            claims = claims & (index == first)
        claimant, _, found = resolve(index, iou, claims, count)
        return _Matches(quality, row, claimant.masked_fill(~found, -1))

    def _in_any_cell(
        self,
        priors: Priors,
        rows: Float[Tensor, "B M 4"],
        part: Bool[Tensor, "B N"],
        index: Int[Tensor, "B M k"],
        inside: Bool[Tensor, "B M k"],
    ) -> _Matches:
        """Every ground truth looks at the priors of the cells of all."""
        responsible = torch.zeros_like(part, dtype=torch.int64)
        responsible = responsible.scatter_reduce(1, index.flatten(1), inside.flatten(1).long(), "amax") > 0
        search = search_of(rows, priors.boxes.float(), priors.levels, part & responsible)
        best = search.best()
        claims = best.row_iou > self.min_pos_iou
        if self.gt_max_assign_all:
            return _Matches(best.prior_iou, best.prior_row, search.last_attaining(best.row_iou, claims))
        images, count = responsible.shape
        row = torch.arange(claims.shape[1], device=claims.device).masked_fill(~claims, -1)
        claimant = torch.full((images, count + 1), -1, dtype=torch.int64, device=row.device)
        claimant = claimant.scatter_reduce(1, search.first_priors(best.row_iou), row, "amax")[:, :count]
        return _Matches(best.prior_iou, best.prior_row, claimant)


def cells(priors: Priors, targets: Targets) -> tuple[Int[Tensor, "B M k"], Bool[Tensor, "B M k"]]:
    """The priors in the cell of each ground truth's centre, of all levels; and whether the grid has that cell.

    Raises:
        ValueError: The priors have no levels, or levels of other counts.
    """
    center = (targets.boxes[..., :2] + targets.boxes[..., 2:]).float() * 0.5
    none = torch.zeros((*center.shape[:2], 0), dtype=torch.int64, device=center.device)
    index, inside = [none], [none.bool()]
    for level, here in levels_of(priors, "GridAssigner"):
        if level.count:
            x, y = ((center[..., i] / level.stride[i]).floor() for i in (0, 1))
            exists = (x >= 0) & (x < level.w) & (y >= 0) & (y < level.h)
            cell = torch.where(exists, y * level.w + x, 0.0).long()[..., None] * level.per_cell
            own = cell + torch.arange(here.start, here.start + level.per_cell, device=center.device)
            index.append(own)
            inside.append(exists[..., None].expand_as(own))
    return torch.cat(index, dim=2), torch.cat(inside, dim=2)
