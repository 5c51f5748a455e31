"""Choosing so many priors of an image, and ranking them within groups: what samplers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Bool, Int
from pydantic import Field
from torch import Tensor

Number = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Ratio = Annotated[int, Field(ge=-1)]

#: Above every random key.
NEVER = 2**62


@dataclass(frozen=True)
class Quota:
    """How many positives and negatives are taken of an image.

    Args:
        num: Priors per image.
        pos_fraction: Highest fraction of positives among them.
        neg_pos_ub: Highest number of negatives for each positive, and for an image without positives; None or
            -1: no limit.
    """

    num: int
    pos_fraction: float
    neg_pos_ub: int | None = None

    @property
    def positives(self) -> int:
        """Most positives of an image."""
        return int(self.num * self.pos_fraction)

    def positives_taken(self, positive: Bool[Tensor, "B N"]) -> Int[Tensor, "B 1"]:
        """The positives that are taken of each image: as many as there are, at most the quota."""
        return positive.sum(dim=1, keepdim=True).clamp(max=self.positives)

    def negatives_wanted(self, taken: Int[Tensor, "B 1"]) -> Int[Tensor, "B 1"]:
        """The negatives that fill up an image from which ``taken`` positives were taken."""
        wanted = self.num - taken
        if self.neg_pos_ub in (None, -1):
            return wanted
        return wanted.clamp(max=self.neg_pos_ub * taken.clamp(min=1))


def take(
    candidates: Bool[Tensor, "B N"], keys: Int[Tensor, "B N"], wanted: Int[Tensor, "B 1"] | int, most: int
) -> tuple[Bool[Tensor, "B N"], Int[Tensor, "B 1"]]:
    """The ``wanted`` candidates of the smallest keys, or all where there are fewer; and how many they are.

    Args:
        candidates: Among which to choose.
        keys: Keys below :data:`NEVER`; which of several equal ones is taken is open.
        wanted: Number per image.
        most: What no ``wanted`` exceeds.
    """
    taken = candidates.sum(dim=1, keepdim=True).clamp(max=wanted)
    order = keys.masked_fill(~candidates, NEVER).topk(min(most, keys.shape[1]), largest=False).indices
    return mark_first(order, taken, keys.shape[1]), taken


def mark_first(order: Int[Tensor, "B T"], count: Int[Tensor, "B 1"], length: int) -> Bool[Tensor, "B N"]:
    """Which of ``length`` priors are among the first ``count`` of ``order`` (prior indices)."""
    chosen = torch.arange(order.shape[1], device=order.device) < count
    return torch.zeros(len(order), length, dtype=torch.bool, device=order.device).scatter(1, order, chosen)


def in_tiers(tier: Int[Tensor, "B N"], keys: Int[Tensor, "B N"]) -> Int[Tensor, "B N"]:
    """Keys by which everything of tier 0 comes before tier 1, up to tier 3; in the order of ``keys`` within."""
    return (tier << 60) + (keys >> 2)


def rank_in_group(
    group: Int[Tensor, "B N"], order: Int[Tensor, "B N"]
) -> tuple[Int[Tensor, "B N"], Bool[Tensor, "B N"]]:
    """The rank of each prior among those of its image and group, from 0, and whether it is the first.

    Args:
        group: A number for each prior.
        order: The prior indices of each image, the best first.
    """
    by_group = order.gather(1, group.gather(1, order).argsort(dim=1, stable=True))
    sorted_group = group.gather(1, by_group)
    starts = torch.ones_like(sorted_group, dtype=torch.bool)
    starts[:, 1:] = sorted_group[:, 1:] != sorted_group[:, :-1]
    place = torch.arange(group.shape[1], device=group.device).expand_as(group)
    first = place.where(starts, 0).cummax(dim=1).values if group.shape[1] else place
    rank = torch.zeros_like(group).scatter(1, by_group, place - first)
    return rank, rank == 0
