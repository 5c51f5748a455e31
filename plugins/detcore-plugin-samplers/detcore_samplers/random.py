"""Random sampling of a fixed number of priors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from jaxtyping import Bool, Int
from pydantic import Field
from torch import Tensor

from detcore.interfaces import Sampler
from detcore.interfaces.sampler import SamplingPredictions
from detcore.structures import Assignment, Sample
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
        num: Priors per image.
        pos_fraction: Highest fraction of positives among them.
        neg_pos_ub: Highest number of negatives for each positive, and for an image without positives. None or
            -1: no limit.
    """

    num: int  # the interface leaves open whether there is one

    def __init__(
        self,
        *,
        num: Annotated[int, Field(ge=1)],
        pos_fraction: Annotated[float, Field(ge=0, le=1)],
        neg_pos_ub: Annotated[int, Field(ge=-1)] | None = None,
    ) -> None:
        self.num = num
        self.pos_fraction = pos_fraction
        self.neg_pos_ub = None if neg_pos_ub == -1 else neg_pos_ub

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
        most = int(self.num * self.pos_fraction)
        positive, taken = _take(assignment.positive, keys, most, most)
        wanted = self.num - taken
        if self.neg_pos_ub is not None:
            wanted = wanted.clamp(max=self.neg_pos_ub * taken.clamp(min=1))
        negative, _ = _take(assignment.negative, keys, wanted, self.num)
        return Sample(positive, negative)


def _take(
    candidates: Bool[Tensor, "B N"], keys: Int[Tensor, "B N"], wanted: Int[Tensor, "B 1"] | int, most: int
) -> tuple[Bool[Tensor, "B N"], Int[Tensor, "B 1"]]:
    """The ``wanted`` candidates of the smallest keys, or all where there are fewer; and how many they are.

    Args:
        candidates: Among which to choose.
        keys: Random keys below 2**62.
        wanted: Number per image.
        most: What no ``wanted`` exceeds.
    """
    taken = candidates.sum(dim=1, keepdim=True).clamp(max=wanted)
    order = keys.masked_fill(~candidates, 2**62).topk(min(most, keys.shape[1]), largest=False).indices
    chosen = torch.arange(order.shape[1], device=keys.device) < taken
    return torch.zeros_like(candidates).scatter(1, order, chosen), taken
