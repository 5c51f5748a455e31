"""Positives of one sampler, negatives of another."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from detcore.component import Part, make, wired
from detcore.interfaces import Sampler
from detcore.interfaces.sampler import SamplingPredictions
from detcore.structures import Assignment, Sample
from detcore_samplers.choice import Fraction, Number, Ratio
from detcore_samplers.instance_balanced import InstanceBalancedPosSampler
from detcore_samplers.iou_balanced import IoUBalancedNegSampler


class CombinedSampler(Sampler):
    """Takes the positives that one sampler chooses and the negatives that another chooses.

    Both parts get ``num``, ``pos_fraction`` and ``neg_pos_ub`` from here. Each counts the positives by the same
    rule, so that the negatives of the one fill up to ``num`` beside the positives of the other. The defaults are
    the balanced sampling of Pang et al., "Libra R-CNN: Towards Balanced Learning for Object Detection"
    (arXiv:1904.02701), section 3.1.

    Args:
        num: Priors per image.
        pos_fraction: Highest fraction of positives among them.
        neg_pos_ub: Highest number of negatives for each positive, and for an image without positives. None or
            -1: no limit.
        pos_sampler: Chooses the positives.
        neg_sampler: Chooses the negatives.

    Raises:
        ConfigError: A part does not take ``num`` priors per image.
    """

    num: int

    def __init__(
        self,
        *,
        num: Number = wired(),
        pos_fraction: Fraction = wired(),
        neg_pos_ub: Ratio | None = wired(None),
        pos_sampler: Part[Sampler] = InstanceBalancedPosSampler.spec(),
        neg_sampler: Part[Sampler] = IoUBalancedNegSampler.spec(),
    ) -> None:
        self.num = num
        shared = {"num": num, "pos_fraction": pos_fraction, "neg_pos_ub": neg_pos_ub}
        self.pos_sampler = make(pos_sampler, **shared)
        self.neg_sampler = make(neg_sampler, **shared)
        for name, part in (("pos_sampler", self.pos_sampler), ("neg_sampler", self.neg_sampler)):
            if part.num != num:
                raise ValueError(
                    f"{name}: {type(part).__name__} takes {'any number' if part.num is None else part.num} of an "
                    f"image, not num={num}; use a sampler of a fixed number, and leave out its num"
                )

    def sample(
        self,
        assignment: Assignment,
        *,
        predict: Callable[[], SamplingPredictions] | None = None,
        generator: torch.Generator | None = None,
    ) -> Sample:
        """See :meth:`detcore.interfaces.Sampler.sample`; reads what its parts read."""
        predict = None if predict is None else functools.cache(predict)
        first = self.pos_sampler.sample(assignment, predict=predict, generator=generator)
        second = self.neg_sampler.sample(assignment, predict=predict, generator=generator)
        return Sample(first.positive, second.negative, _weight(first, second))


def _weight(first: Sample, second: Sample) -> torch.Tensor | None:
    """Positives weigh as in the first sample, all others as in the second."""
    if first.weight is None and second.weight is None:
        return None
    one = torch.ones_like(first.positive, dtype=torch.float32)
    own, other = (one if sample.weight is None else sample.weight for sample in (first, second))
    return torch.where(first.positive, own, other)
