"""Adaptive training sample selection."""

from __future__ import annotations

from typing import Annotated, Literal

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
from detcore_assigners.choice import gathered, nearest, resolve
from detcore_assigners.levels import levels_of
from detcore_assigners.overlaps import slices
from detcore_assigners.regions import ignored_priors
from detcore_assigners.surroundings import centers_inside

#: Distance in pixels that puts a prior behind all that take part, and yet before those that cannot be chosen.
FAR = 1e8


class ATSSAssigner(Assigner):
    """A ground truth sets its own IoU threshold, from the statistics of the priors nearest to it.

    For each ground truth:

    1. its candidates are the ``topk`` priors per level with the nearest centres (of equal ones the first);
    2. its threshold is the mean plus the standard deviation (unbiased) of its IoU with them;
    3. candidates that reach it and have their centre inside the ground truth are positive.

    A prior that is positive for several ground truths goes to the one of highest IoU (of equal ones the
    first); ``quality`` is that IoU, 0 where the prior is not positive. All other priors are negative, but for
    those outside of the image (``priors.valid``) and in regions to ignore, which take no part: state -1.

    Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training
    Sample Selection" (arXiv:1912.02424).
    With ``alpha``: Chen et al., "Disentangle Your Dense Object Detector" (arXiv:2107.02963).

    Args:
        topk: Candidates per level.
        alpha: In place of the IoU with the prior, take score^(1 - alpha) * IoU^alpha of the prediction, where
            score is the sigmoid of the logit of the ground truth's class. Needs predictions. None: the IoU.
        ignore_iof_thr: Priors with more than this part inside a region to ignore take no part. None or -1:
            regions to ignore have no effect, what they hold is background.
        ignored_candidates: True lets ignored priors fill up the candidates where a level has fewer than
            ``topk`` others, and become positive, as the reference does.
        match_single_candidate: False lets a ground truth with a single candidate go without (its standard
            deviation is undefined), as the reference does; True takes the deviation as 0.
        ignore_in_empty_images: False gives regions to ignore no effect in images without ground truth, as the
            reference does.
    """

    needs = frozenset({"levels"})

    def __init__(
        self,
        *,
        topk: Annotated[int, Field(ge=1)] = 9,
        alpha: Annotated[float, Field(ge=0, le=1)] | None = None,
        ignore_iof_thr: Annotated[float, Field(gt=0, le=1)] | Literal[-1] | None = 0.5,
        ignored_candidates: bool = False,
        match_single_candidate: bool = True,
        ignore_in_empty_images: bool = True,
    ) -> None:
        self.topk = topk
        self.alpha = alpha
        self.ignore_iof_thr = None if ignore_iof_thr == -1 else ignore_iof_thr
        self.ignored_candidates = ignored_candidates
        self.match_single_candidate = match_single_candidate
        self.ignore_in_empty_images = ignore_in_empty_images
        if alpha is not None:
            self.needs = self.needs | {"logits", "boxes"}

    @torch.no_grad()
    def assign(
        self,
        priors: Priors,
        targets: Targets,
        predictions: Predictions | None = None,
        batch: ImageBatch | None = None,
    ) -> Assignment:
        """See :meth:`detcore.interfaces.Assigner.assign`; reads the predictions where ``alpha`` is set.

        Raises:
            ValueError: The priors have no levels, or levels of other counts; or predictions are missing.
        """
        matchable = targets.matchable
        ignored = ignored_priors(priors, targets, self.ignore_iof_thr)
        if not self.ignore_in_empty_images:
            ignored = ignored & matchable.any(dim=1, keepdim=True)
        valid = torch.ones_like(ignored) if priors.valid is None else priors.valid
        choosable = valid if self.ignored_candidates else valid & ~ignored
        candidates = self._candidates(priors, targets, valid & ~ignored, choosable)
        chosen = gathered(choosable, candidates) & matchable[..., None]
        overlaps = self._overlaps(priors, targets, candidates, predictions)
        positive = chosen & self._reaching(overlaps, chosen) & centers_inside(priors, targets, candidates)
        gt_index, quality, found = resolve(candidates, overlaps, positive, len(priors))
        state = torch.full_like(gt_index, NEGATIVE, dtype=torch.int8)
        state = state.masked_fill(ignored | ~valid, IGNORED).masked_fill(found, POSITIVE)
        return Assignment(gt_index, state, quality)

    def _candidates(
        self, priors: Priors, targets: Targets, part: Bool[Tensor, "B N"], choosable: Bool[Tensor, "B N"]
    ) -> Int[Tensor, "B M k"]:
        """The priors nearest to each ground truth, ``topk`` of each level; some may not be choosable."""
        prior_x, prior_y = priors.centers.float().unbind(-1)
        gt_x, gt_y = ((targets.boxes[..., :2] + targets.boxes[..., 2:]).float() / 2)[..., None].unbind(-2)
        images, rows = targets.boxes.shape[:2]
        candidates = [torch.zeros((images, rows, 0), dtype=torch.int64, device=gt_x.device)]
        for level, here in levels_of(priors, "ATSSAssigner"):
            x, y = (c[..., here].expand(images, -1)[:, None] for c in (prior_x, prior_y))
            behind = torch.where(choosable[:, here], FAR, torch.inf)[:, None]
            # written in place: small results kept between large temporaries would keep the heap from reusing those
            k = min(self.topk, level.count)
            found = torch.zeros((images, rows, k), dtype=torch.int64, device=gt_x.device)
            for start, stop in slices(rows, images * level.count):
                dx, dy = gt_x[:, start:stop] - x, gt_y[:, start:stop] - y
                distance = dx.square_().add_(dy.square_()).sqrt_()
                distance = torch.where(part[:, None, here], distance, behind)
                # the reference takes whatever topk finds among equals (the ignored)
                first = not self.ignored_candidates
                found[:, start:stop] = nearest(distance, k, first_of_equals=first)
            candidates.append(found + here.start)
        return torch.cat(candidates, dim=2)

    def _overlaps(
        self,
        priors: Priors,
        targets: Targets,
        candidates: Int[Tensor, "B M k"],
        predictions: Predictions | None,
    ) -> Float[Tensor, "B M k"]:
        """IoU with the candidates, or with ``alpha`` the score of their predictions."""
        gts = targets.boxes.float()[:, :, None]
        index = candidates.flatten(1)
        if self.alpha is None:
            boxes = priors.gather(index).boxes.float()
            return aligned_overlap(boxes.reshape(*candidates.shape, 4), gts)
        if predictions is None:
            raise ValueError(
                "ATSSAssigner with alpha needs predictions (logits and boxes), got None; pass them, or set "
                "alpha=None"
            )
        boxes = predictions.boxes.float().gather(1, index[..., None].expand(-1, -1, 4))
        overlaps = aligned_overlap(boxes.reshape(*candidates.shape, 4), gts)
        image = torch.arange(len(targets), device=index.device)[:, None, None]
        logits = predictions.logits[image, candidates, targets.labels[..., None]]
        return logits.float().sigmoid() ** (1 - self.alpha) * overlaps**self.alpha

    def _reaching(
        self, overlaps: Float[Tensor, "B M k"], chosen: Bool[Tensor, "B M k"]
    ) -> Bool[Tensor, "B M k"]:
        """The candidates whose overlap is at least the ground truth's threshold."""
        count = chosen.sum(dim=2, keepdim=True)
        # summed as differences from the best, so that the mean of equal overlaps is not rounded above them
        best = F.pad(torch.where(chosen, overlaps, 0.0), (0, 1)).amax(dim=2, keepdim=True)  # k may be 0
        mean = best + torch.where(chosen, overlaps - best, 0.0).sum(dim=2, keepdim=True) / count.clamp(min=1)
        spread = torch.where(chosen, overlaps - mean, 0.0).square().sum(dim=2, keepdim=True)
        threshold = mean + (spread / (count - 1).clamp(min=1)).sqrt()
        reaching = overlaps >= threshold
        return reaching if self.match_single_candidate else reaching & (count > 1)
