"""The priors that are classified worst."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detcore.component import wired
from detcore.interfaces import Sampler
from detcore.interfaces.sampler import SamplingPredictions
from detcore.structures import Assignment, Sample
from detcore_samplers.choice import Fraction, Number, Quota, Ratio, mark_first


class OHEMSampler(Sampler):
    """Takes the positives and the negatives with the highest classification losses, ``num`` of an image.

    Numbers of both are those of :class:`RandomSampler`. Of equal losses the prior that comes first is taken. The
    losses are those of all candidates of the image under the network as it is, so the owner runs its head once
    more than otherwise, without gradients.

    Shrivastava et al., "Training Region-based Object Detectors with Online Hard Example Mining"
    (arXiv:1604.03540).

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
        """See :meth:`detcore.interfaces.Sampler.sample`; reads the losses, nothing random.

        Raises:
            ValueError: There is no ``predict``.
        """
        if predict is None:
            raise ValueError(
                "predict is missing: OHEMSampler ranks by classification losses, which the head that owns it "
                "should give; use RandomSampler where there are none"
            )
        losses = predict().losses
        taken = self.quota.positives_taken(assignment.positive)
        available = assignment.negative.sum(dim=1, keepdim=True)
        wanted = torch.minimum(self.quota.negatives_wanted(taken), available)
        return Sample(_worst(assignment.positive, losses, taken), _worst(assignment.negative, losses, wanted))


def _worst(
    candidates: Bool[Tensor, "B N"], losses: Float[Tensor, "B N"], count: Int[Tensor, "B 1"]
) -> Bool[Tensor, "B N"]:
    """The ``count`` candidates of the highest losses; there are so many."""
    ranked = losses.masked_fill(~candidates, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return mark_first(ranked, count, losses.shape[1]) & candidates
