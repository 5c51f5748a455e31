"""Negatives spread evenly over how much they overlap objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Int
from pydantic import Field
from torch import Tensor

from detcore.component import wired
from detcore.interfaces import Sampler
from detcore.interfaces.sampler import SamplingPredictions
from detcore.structures import Assignment, Sample
from detcore_samplers.choice import Fraction, Number, Quota, Ratio, in_tiers, rank_in_group, take
from detcore_samplers.keys import other_keys, random_keys


class IoUBalancedNegSampler(Sampler):
    """Takes about as many negatives of each range of overlap, at random; positives as :class:`RandomSampler`.

    Needs an assignment whose ``quality`` is the overlap with the nearest object. The range from ``floor_thr``
    (0 where None) to the highest overlap is cut into ``num_bins`` bins. Of W negatives wanted,
    int(W * (1 - floor_fraction)) come from the bins, equally many from each as far as there are, the rest of
    them from anywhere above the floor; then negatives below the floor fill up, then any.

    Pang et al., "Libra R-CNN: Towards Balanced Learning for Object Detection" (arXiv:1904.02701), section 3.1.

    Args:
        num: Priors per image; supplied by a :class:`CombinedSampler`.
        pos_fraction: Highest fraction of positives among them; likewise.
        neg_pos_ub: Highest number of negatives for each positive, and for an image without positives;
            likewise. None or -1: no limit.
        floor_thr: Overlap below which negatives are too easy for the bins. At 0 those are the negatives that
            overlap nothing; None puts all into the bins (-1 in MMDetection).
        floor_fraction: Fraction of the negatives that is taken from below the floor.
        num_bins: Number of bins.
        bins_over: Up to whose highest overlap the bins reach: that of the negatives, so that each bin can hold
            some, or of all priors. The latter is MMDetection's way: positives and the ground truths among
            the proposals stretch the range, up to 1, and the upper bins stay empty.
    """

    num: int

    def __init__(
        self,
        *,
        num: Number = wired(),
        pos_fraction: Fraction = wired(),
        neg_pos_ub: Ratio | None = wired(None),
        floor_thr: Annotated[float, Field(ge=0, le=1)] | None = None,
        floor_fraction: Fraction = 0.0,
        num_bins: Annotated[int, Field(ge=1)] = 3,
        bins_over: Literal["negatives", "all"] = "negatives",
    ) -> None:
        self.num = num
        self.quota = Quota(num, pos_fraction, neg_pos_ub)
        self.floor_thr, self.floor_fraction = floor_thr, floor_fraction
        self.num_bins, self.bins_over = num_bins, bins_over

    @torch.no_grad()
    def sample(
        self,
        assignment: Assignment,
        *,
        predict: Callable[[], SamplingPredictions] | None = None,
        generator: torch.Generator | None = None,
    ) -> Sample:
        """See :meth:`detcore.interfaces.Sampler.sample`; reads the assignment only."""
        keys, most = random_keys(assignment, generator), self.quota.positives
        positive, taken = take(assignment.positive, keys, most, most)
        wanted = self.quota.negatives_wanted(taken)
        return Sample(positive, self._negatives(assignment, keys, wanted))

    def _negatives(
        self, assignment: Assignment, keys: Int[Tensor, "B N"], wanted: Int[Tensor, "B 1"]
    ) -> Bool[Tensor, "B N"]:
        binned, floor = self._above_and_below(assignment)
        available = assignment.negative.sum(dim=1, keepdim=True)
        wanted = torch.minimum(wanted, available)
        from_bins = (wanted.double() * (1 - self.floor_fraction)).floor().long()
        group = torch.where(binned, self._bins(assignment), -1)
        rank, _ = rank_in_group(group, keys.argsort(dim=1))
        even = rank < from_bins // self.num_bins
        keys = other_keys(keys)
        chosen, _ = take(binned, in_tiers((~even).long(), keys), from_bins, self.num)
        tier = torch.where(chosen, 0, torch.where(floor, 1, 2))
        negative, _ = take(assignment.negative, in_tiers(tier, keys), wanted, self.num)
        return negative

    def _above_and_below(self, assignment: Assignment) -> tuple[Bool[Tensor, "B N"], Bool[Tensor, "B N"]]:
        """The negatives for the bins, and those below the floor. A negative overlap is neither."""
        overlap, negative = assignment.quality, assignment.negative
        if self.floor_thr is None:
            return negative & (overlap >= 0), torch.zeros_like(negative)
        if self.floor_thr == 0:
            return negative & (overlap > 0), negative & (overlap == 0)
        above = overlap >= self.floor_thr
        return negative & above, negative & (overlap >= 0) & ~above

    def _bins(self, assignment: Assignment) -> Int[Tensor, "B N"]:
        """The bin of each prior by its overlap; the highest overlap belongs to the last bin."""
        low, overlap = self.floor_thr or 0.0, assignment.quality
        counts = (
            assignment.negative if self.bins_over == "negatives" else torch.ones_like(assignment.negative)
        )
        if not overlap.shape[1]:
            return torch.zeros_like(assignment.gt_index)
        high = overlap.masked_fill(~counts, low).amax(dim=1, keepdim=True)
        width = (high - low) / self.num_bins
        place = (overlap - low) / torch.where(width > 0, width, 1)
        return place.floor().clamp(0, self.num_bins - 1).long()
