"""Negatives by how easily they become detections, with weights to match."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from detcore.component import wired
from detcore.interfaces import Sampler
from detcore.interfaces.sampler import SamplingPredictions
from detcore.structures import Assignment, Sample
from detcore_samplers.choice import Fraction, Number, Quota, Ratio, in_tiers, rank_in_group, take
from detcore_samplers.groups import overlap_groups
from detcore_samplers.keys import random_keys


class ScoreHLRSampler(Sampler):
    """Takes and weighs negatives by their hierarchical local rank; positives as :class:`RandomSampler`.

    Negatives whose best score is above ``score_thr`` are grouped: the best one with all others whose predicted
    boxes overlap its own, then the best one of the rest, and so on. They are ranked by their place within their
    group first, by their score second (equal scores: the prior that comes first). The first in this order are
    taken; where there are too few, others fill up at random. With R the rank of a negative and U the larger
    one of the numbers of ranked and of wanted negatives, its weight is (bias + (1 - bias) * (U - R) / U)^k; those
    that fill up weigh as the last ranked one. An image's weights are then scaled so that its negatives' summed
    loss stays what it was. This is the part of "Prime Sample Attention in Object Detection" (arXiv:1904.04821,
    section 4.2) that is for negatives, ISR-N.

    Made for the second stage: grouping costs as much as non-maximum suppression of all candidates. In the numbers
    of MMDetection ranks are added to scores in float32, so that scores closer than about 1e-4 count as equal.

    Args:
        num: Priors per image; supplied by a :class:`CombinedSampler`.
        pos_fraction: Highest fraction of positives among them; likewise.
        neg_pos_ub: Highest number of negatives for each positive, and for an image without positives;
            likewise. None or -1: no limit.
        k: Power of the weights.
        bias: Smallest weight before the power.
        score_thr: Negatives are ranked whose best score is above it.
        iou_thr: Predicted boxes that overlap more are in one group.
        max_candidates: Most negatives of an image that are ranked, those with the best scores; bounds memory
            and time for dense heads.
    """

    num: int

    def __init__(
        self,
        *,
        num: Number = wired(),
        pos_fraction: Fraction = wired(),
        neg_pos_ub: Ratio | None = wired(None),
        k: Annotated[float, Field(ge=0)] = 0.5,
        bias: Annotated[float, Field(ge=0, le=1)] = 0.0,
        score_thr: Annotated[float, Field(ge=0, le=1)] = 0.05,
        iou_thr: Annotated[float, Field(ge=0, le=1)] = 0.5,
        max_candidates: Annotated[int, Field(ge=1)] = 4096,
    ) -> None:
        self.num = num
        self.quota = Quota(num, pos_fraction, neg_pos_ub)
        self.k, self.bias = k, bias
        self.score_thr, self.iou_thr, self.max_candidates = score_thr, iou_thr, max_candidates

    @torch.no_grad()
    def sample(
        self,
        assignment: Assignment,
        *,
        predict: Callable[[], SamplingPredictions] | None = None,
        generator: torch.Generator | None = None,
    ) -> Sample:
        """See :meth:`detcore.interfaces.Sampler.sample`; reads scores, boxes and losses.

        Raises:
            ValueError: There is no ``predict``, or it gives no scores.
        """
        seen = None if predict is None else predict()
        if seen is None or seen.scores is None:
            raise ValueError(
                f"{'predict' if seen is None else 'scores'} missing: ScoreHLRSampler ranks by scores, which the "
                "head that owns it should give; use RandomSampler where there are none"
            )
        keys, most = random_keys(assignment, generator), self.quota.positives
        positive, taken = take(assignment.positive, keys, most, most)
        wanted = self.quota.negatives_wanted(taken)
        wanted = torch.minimum(wanted, assignment.negative.sum(dim=1, keepdim=True))
        scores = seen.scores.float().amax(dim=-1).masked_fill(~assignment.negative, -1)
        rank, ranked = self._ranks(scores, seen.boxes)
        # ranks are far below 2**60, as in_tiers expects keys to be
        order = in_tiers((~ranked).long(), torch.where(ranked, rank << 2, keys))
        negative, _ = take(assignment.negative, order, wanted, self.num)
        weight = self._weights(rank, negative & ranked, negative & ~ranked, ranked, wanted)
        weight = weight * _scale(seen.losses.float(), weight, negative)
        return Sample(positive, negative, torch.where(negative, weight, 1.0))

    def _ranks(
        self, scores: Float[Tensor, "B N"], boxes: Float[Tensor, "B N 4"]
    ) -> tuple[Int[Tensor, "B N"], Bool[Tensor, "B N"]]:
        """The hierarchical local rank of each candidate, and which are ranked at all."""
        best = scores.argsort(dim=1, descending=True, stable=True)[:, : self.max_candidates]
        top = scores.gather(1, best)
        among = top > self.score_thr
        own = boxes.gather(1, best[..., None].expand(-1, -1, 4))
        group = overlap_groups(own, among, self.iou_thr)
        here = torch.arange(best.shape[1], device=best.device).expand_as(best)
        place, _ = rank_in_group(group, here)
        # sorted by score already, so a stable sort by place makes the order; what is not ranked comes last
        order = place.masked_fill(~among, best.shape[1]).argsort(dim=1, stable=True)
        local = torch.zeros_like(here).scatter(1, order, here)
        none = torch.zeros_like(scores, dtype=torch.int64)
        return none.scatter(1, best, local), none.scatter(1, best, among.long()).bool()

    def _weights(
        self,
        rank: Int[Tensor, "B N"],
        chosen: Bool[Tensor, "B N"],
        filled: Bool[Tensor, "B N"],
        ranked: Bool[Tensor, "B N"],
        wanted: Int[Tensor, "B 1"],
    ) -> Float[Tensor, "B N"]:
        """Weights before they are scaled; 1 where nothing is ranked."""
        upper = torch.maximum(ranked.sum(dim=1, keepdim=True), wanted).clamp(min=1)
        last = rank.masked_fill(~chosen, 0).amax(dim=1, keepdim=True) if rank.shape[1] else rank.sum(1, True)
        rank = torch.where(filled, last, rank)
        linear = (upper - rank) / upper
        weight: Tensor = (self.bias + (1 - self.bias) * linear).clamp(min=0) ** self.k
        return torch.where(ranked.any(dim=1, keepdim=True), weight, 1.0)


def _scale(
    losses: Float[Tensor, "B N"], weight: Float[Tensor, "B N"], negative: Bool[Tensor, "B N"]
) -> Float[Tensor, "B 1"]:
    """By what to multiply weights so that the summed loss of the chosen stays; 1 where there is none."""
    plain = torch.where(negative, losses, 0)
    weighted = (plain * weight).sum(dim=1, keepdim=True)
    ratio = plain.sum(dim=1, keepdim=True) / torch.where(weighted > 0, weighted, 1)
    return torch.where(weighted > 0, ratio, 1.0)
