"""Random sampling of a fixed number of priors."""

from __future__ import annotations

from collections.abc import Callable

import torch

from detcore.component import wired
from detcore.interfaces import Sampler
from detcore.interfaces.sampler import SamplingPredictions
from detcore.structures import Assignment, Sample
from detcore_samplers.choice import Fraction, Number, Quota, Ratio, take
from detcore_samplers.keys import random_keys


class RandomSampler(Sampler):
    """Takes up to ``num`` priors of an image at random, a fraction of them positives.

    At most ``int(num * pos_fraction)`` positives are taken; negatives fill up to ``num``, as far as there are
    any and ``neg_pos_ub`` allows. Every subset of those sizes is equally likely.

    An image's sample depends on its own assignment and on the generator's state, of which one number is read
    per call; neither on the other images of the batch, nor on its place among them, nor on the device. Give
    every process a generator in the same state (seeded from seed and step, or from seed and epoch), and the
    sample of an image does not depend on the process that it falls to.

    Ren et al., "Faster R-CNN" (arXiv:1506.01497).

    Args:
        num: Priors per image; supplied by a :class:`CombinedSampler`.
        pos_fraction: Highest fraction of positives among them; likewise.
        neg_pos_ub: Highest number of negatives for each positive, and for an image without positives;
            likewise. None or -1: no limit.
    """

    num: int  # the interface leaves open whether there is one

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
        keys, most = random_keys(assignment, generator), self.quota.positives
        positive, taken = take(assignment.positive, keys, most, most)
        wanted = self.quota.negatives_wanted(taken)
        negative, _ = take(assignment.negative, keys, wanted, self.num)
        return Sample(positive, negative)
