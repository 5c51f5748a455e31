"""Assignment by the best IoU."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

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
from detcore_assigners.overlaps import Best, DenseSearch, OverlapSearch
from detcore_assigners.regions import ignored_priors
from detcore_assigners.tiles import search_of

Fraction = Annotated[float, Field(ge=0, le=1)]
Threshold = Annotated[float, Field(gt=0, le=1)]


class MaxIoUAssigner(Assigner):
    """A prior answers for the ground truth that it overlaps best; a ground truth keeps its best priors.

    For each prior, with the best IoU over the ground truths of its image:

    1. negative where the IoU is within ``neg_iou_thr``, ignored where nothing below applies;
    2. positive where the IoU is at least ``pos_iou_thr``; of equal ground truths the first wins;
    3. with ``match_low_quality``, a ground truth whose best IoU is at least ``min_pos_iou`` takes the priors
       that attain it, whatever they were assigned to; of several claimants the last wins.

    Priors outside of the image (``priors.valid``) and in regions to ignore take no part: state -1, quality 0.
    ``quality`` is the best IoU, also where step 3 chose another ground truth.

    Ren et al., "Faster R-CNN" (arXiv:1506.01497); Lin et al., "Focal Loss" (arXiv:1708.02002).

    Args:
        pos_iou_thr: IoU from which a prior is positive.
        neg_iou_thr: IoU below which it is negative; (low, high) means from low to below high.
        min_pos_iou: IoU from which a ground truth takes its best priors.
        gt_max_assign_all: Whether it takes all priors that attain its best IoU, or the first one.
        match_low_quality: Whether step 3 is done.
        ignore_iof_thr: Priors with more than this part inside a region to ignore take no part. None or -1:
            regions to ignore have no effect, what they hold is background.
        ignore_wrt_candidates: False takes the part of the region that the prior covers instead: a large
            region then ignores nothing.
        match_without_overlap: True lets a ground truth that overlaps nothing take, in step 3 with
            ``min_pos_iou`` 0, every prior of IoU 0 with it (or the first one), as the reference does.
        ignore_in_empty_images: False gives regions to ignore no effect in images without ground truth, as the
            reference does.

    Raises:
        ConfigError: ``neg_iou_thr`` is not in order, or reaches above ``pos_iou_thr``.
    """

    def __init__(
        self,
        *,
        pos_iou_thr: Threshold,
        neg_iou_thr: Fraction | tuple[Fraction, Fraction],
        min_pos_iou: Fraction = 0.0,
        gt_max_assign_all: bool = True,
        match_low_quality: bool = True,
        ignore_iof_thr: Threshold | Literal[-1] | None = 0.5,
        ignore_wrt_candidates: bool = True,
        match_without_overlap: bool = False,
        ignore_in_empty_images: bool = True,
    ) -> None:
        low, high = neg_iou_thr if isinstance(neg_iou_thr, tuple) else (0.0, neg_iou_thr)
        if not low <= high <= pos_iou_thr:
            raise ValueError(
                f"neg_iou_thr should be (low, high) with low <= high <= pos_iou_thr ({pos_iou_thr}), got "
                f"({low}, {high}); lower it, or raise pos_iou_thr"
            )
        self.pos_iou_thr = pos_iou_thr
        self.neg_iou_range = (low, high)
        self.min_pos_iou = min_pos_iou
        self.gt_max_assign_all = gt_max_assign_all
        self.match_low_quality = match_low_quality
        self.ignore_iof_thr = None if ignore_iof_thr == -1 else ignore_iof_thr
        self.ignore_wrt_candidates = ignore_wrt_candidates
        self.match_without_overlap = match_without_overlap
        self.ignore_in_empty_images = ignore_in_empty_images

    @torch.no_grad()
    def assign(
        self,
        priors: Priors,
        targets: Targets,
        predictions: Predictions | None = None,
        batch: ImageBatch | None = None,
    ) -> Assignment:
        """See :meth:`detcore.interfaces.Assigner.assign`; reads priors and targets only."""
        matchable = targets.matchable
        part = ~ignored_priors(priors, targets, self.ignore_iof_thr, self.ignore_wrt_candidates)
        if not self.ignore_in_empty_images:
            part = part | ~matchable.any(dim=1, keepdim=True)
        if priors.valid is not None:
            part = part & priors.valid
        # rows that take no part become boxes of zeros, which overlap with nothing
        rows = torch.where(matchable[..., None], targets.boxes.float(), 0.0)
        return self.decide(search_of(rows, priors.boxes.float(), priors.levels, part), matchable, part)

    @torch.no_grad()
    def assign_overlaps(
        self, overlaps: Float[Tensor, "B M N"], matchable: Bool[Tensor, "B M"], part: Bool[Tensor, "B N"]
    ) -> Assignment:
        """The assignment for overlaps that are given.

        Args:
            overlaps: 0..1.
            matchable: Rows that are ground truths.
            part: Priors that take part.
        """
        taken = matchable[:, :, None] & part[:, None, :]
        return self.decide(DenseSearch.of_matrix(overlaps.masked_fill(~taken, 0.0)), matchable, part)

    def decide(
        self, search: OverlapSearch, matchable: Bool[Tensor, "B M"], part: Bool[Tensor, "B N"]
    ) -> Assignment:
        """The assignment for overlaps from anywhere; rows and priors that take no part must overlap by 0."""
        best = search.best()
        low, high = self.neg_iou_range
        negative = best.prior_iou < high
        if low > 0:
            negative = negative & (best.prior_iou >= low)
        negative = negative | ~matchable.any(dim=1, keepdim=True)
        positive = best.prior_iou >= self.pos_iou_thr
        gt_index = best.prior_row
        if self.match_low_quality:
            claimant = self._claimants(search, best, matchable, part)
            claimed = claimant >= 0
            positive = positive | claimed
            gt_index = torch.where(claimed, claimant, gt_index)
        positive, negative = positive & part, negative & part
        state = torch.full_like(gt_index, IGNORED, dtype=torch.int8)
        state = state.masked_fill(negative, NEGATIVE).masked_fill(positive, POSITIVE)
        return Assignment(gt_index.masked_fill(~positive, 0), state, best.prior_iou)

    def _claimants(
        self, search: OverlapSearch, best: Best, matchable: Bool[Tensor, "B M"], part: Bool[Tensor, "B N"]
    ) -> Int[Tensor, "B N"]:
        """The last ground truth that takes each prior in step 3, or -1."""
        claims = matchable & (best.row_iou >= self.min_pos_iou)
        touching = claims & (best.row_iou > 0)
        row = torch.arange(claims.shape[1], device=claims.device).expand_as(claims)
        if self.gt_max_assign_all:
            found = search.last_attaining(best.row_iou, touching)
        else:
            images, count = part.shape
            found = torch.full((images, count + 1), -1, dtype=torch.int64, device=part.device)
            prior = search.first_priors(best.row_iou)
            found = found.scatter_reduce(1, prior, row.masked_fill(~touching, -1), "amax")[:, :count]
        if self.match_without_overlap:
            # what overlaps nothing overlaps all priors equally
            last = row.masked_fill(~claims | touching, -1).amax(dim=1, keepdim=True)
            taken = part if self.gt_max_assign_all else part & (part.cumsum(dim=1) == 1)
            found = torch.where(taken, torch.maximum(found, last), found)
        return found
