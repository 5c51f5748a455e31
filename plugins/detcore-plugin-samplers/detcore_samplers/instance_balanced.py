"""Positives spread evenly over the objects."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from detcore.component import wired
from detcore.interfaces import Sampler
from detcore.interfaces.sampler import SamplingPredictions
from detcore.structures import Assignment, Sample
from detcore_samplers.choice import Fraction, Number, Quota, Ratio, in_tiers, rank_in_group, take
from detcore_samplers.keys import other_keys, random_keys


class InstanceBalancedPosSampler(Sampler):
    """Takes about as many positives of each object, at random; negatives as :class:`RandomSampler`.

    Of each of the G objects that have positives, up to round(P / G) + 1 are drawn, P being the number of
    positives wanted (halves are rounded to the even number). If these are more than P, a random choice of them
    is left out; if they are fewer, other positives fill up. So P positives are taken wherever there are so many;
    MMDetection, which draws some twice, may come out below.

    Pang et al., "Libra R-CNN: Towards Balanced Learning for Object Detection" (arXiv:1904.02701), section 3.1.

    Args:
        num: Priors per image; supplied by a :class:`CombinedSampler`.
        pos_fraction: Highest fraction of positives among them; likewise.
        neg_pos_ub: Highest number of negatives for each positive, and for an image without positives;
            likewise. None or -1: no limit.
    """

    num: int

    def __init__(
        self,
        *,
        num: Number = wired(),
        pos_fraction: Fraction = wired(),
        neg_pos_ub: Ratio | None = wired(None),
    ) -> None:
        self.num = num
        self.quota = Quota(num, pos_fraction, neg_pos_ub)

    @torch.no_grad()
    def sample(
        self,
        assignment: Assignment,
        *,
        predict: Callable[[], SamplingPredictions] | None = None,
        generator: torch.Generator | None = None,
    ) -> Sample:
        """See :meth:`detcore.interfaces.Sampler.sample`; reads the assignment only."""
        keys = random_keys(assignment, generator)
        positive, taken = self._positives(assignment, keys)
        wanted = self.quota.negatives_wanted(taken)
        negative, _ = take(assignment.negative, keys, wanted, self.num)
        return Sample(positive, negative)

    def _positives(
        self, assignment: Assignment, keys: Int[Tensor, "B N"]
    ) -> tuple[Bool[Tensor, "B N"], Int[Tensor, "B 1"]]:
        positive, most = assignment.positive, self.quota.positives
        gt = torch.where(positive, assignment.gt_index, -1)
        rank, first = rank_in_group(gt, keys.argsort(dim=1))
        objects = (first & positive).sum(dim=1, keepdim=True)
        per_object = (most / objects.clamp(min=1).double()).round().long() + 1
        # keys of their own, for those that rank first within an object have small ones
        order = in_tiers((rank >= per_object).long(), other_keys(keys))
        return take(positive, order, most, most)
