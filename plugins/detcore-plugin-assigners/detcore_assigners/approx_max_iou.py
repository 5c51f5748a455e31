"""Assignment by the best IoU with boxes that stand for a prior."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field

from detcore.interfaces import Assigner
from detcore.structures import ApproxPriors, Assignment, ImageBatch, Predictions, PriorLevel, Priors, Targets
from detcore_assigners.groups import GroupSearch
from detcore_assigners.max_iou import MaxIoUAssigner
from detcore_assigners.regions import ignored_priors
from detcore_assigners.tiles import search_of

Fraction = Annotated[float, Field(ge=0, le=1)]
Threshold = Annotated[float, Field(gt=0, le=1)]


class ApproxMaxIoUAssigner(Assigner):
    """As :class:`MaxIoUAssigner`, for priors whose shape is not known yet: A approximating boxes stand for each.

    The IoU of a prior with a ground truth is the best IoU of its approximating boxes
    (``ApproxPriors.approxs`` [N, A, 4]); all else is that of ``MaxIoUAssigner``, its order and ties
    included. Regions to ignore are compared with the prior itself (``priors.boxes``, the square).

    Wang et al., "Region Proposal by Guided Anchoring" (arXiv:1901.03278); also used by Wang et al.,
    "Side-Aware Boundary Localization" (arXiv:1912.04260).

    Args:
        pos_iou_thr: IoU from which a prior is positive.
        neg_iou_thr: IoU below which it is negative; (low, high) means from low to below high.
        min_pos_iou: IoU from which a ground truth takes its best priors.
        gt_max_assign_all: Whether it takes all priors that attain its best IoU, or the first one.
        match_low_quality: Whether ground truths take their best priors.
        ignore_iof_thr: Priors with more than this part inside a region to ignore take no part. None or -1:
            regions to ignore have no effect, what they hold is background.
        ignore_wrt_candidates: False takes the part of the region that the prior covers instead.
        match_without_overlap: See ``MaxIoUAssigner``; True is the reference's.
        ignore_in_empty_images: See ``MaxIoUAssigner``; False is the reference's.

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
        self._rule = MaxIoUAssigner(
            pos_iou_thr=pos_iou_thr,
            neg_iou_thr=neg_iou_thr,
            min_pos_iou=min_pos_iou,
            gt_max_assign_all=gt_max_assign_all,
            match_low_quality=match_low_quality,
            match_without_overlap=match_without_overlap,
        )
        self.ignore_iof_thr = None if ignore_iof_thr == -1 else ignore_iof_thr
        self.ignore_wrt_candidates = ignore_wrt_candidates
        self.ignore_in_empty_images = ignore_in_empty_images

    @torch.no_grad()
    def assign(
        self,
        priors: Priors,
        targets: Targets,
        predictions: Predictions | None = None,
        batch: ImageBatch | None = None,
    ) -> Assignment:
        """See :meth:`detcore.interfaces.Assigner.assign`; reads priors and targets only.

        Raises:
            ValueError: The priors have no approximating boxes, or not some for each.
        """
        approxs = getattr(priors, "approxs", None) if isinstance(priors, ApproxPriors) else None
        if approxs is None or approxs.dim() != 3 or len(approxs) != len(priors) or approxs.shape[1] == 0:
            got = None if approxs is None else list(approxs.shape)
            raise ValueError(
                f"ApproxMaxIoUAssigner needs ApproxPriors with approxs [{len(priors)}, A, 4], A at least 1; "
                f"got {got}; for priors without them use MaxIoUAssigner"
            )
        matchable = targets.matchable
        part = ~ignored_priors(priors, targets, self.ignore_iof_thr, self.ignore_wrt_candidates)
        if not self.ignore_in_empty_images:
            part = part | ~matchable.any(dim=1, keepdim=True)
        if priors.valid is not None:
            part = part & priors.valid
        # rows that take no part become boxes of zeros, which overlap with nothing
        rows = torch.where(matchable[..., None], targets.boxes.float(), 0.0)
        size = approxs.shape[1]
        levels = tuple(
            PriorLevel(level.h, level.w, level.per_cell * size, level.stride) for level in priors.levels
        )
        search = search_of(rows, approxs.float().flatten(0, 1), levels, part.repeat_interleave(size, dim=1))
        return self._rule.decide(GroupSearch(search, size), matchable, part)
