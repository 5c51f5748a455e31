"""Assignment by rank."""

from __future__ import annotations

from typing import Annotated

import torch
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
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from tiny_objects.wasserstein import as_gaussian, closeness

#: Objects that are compared with all priors at a time, so that memory stays bounded.
CHUNK = 64


class RankingAssigner(Assigner):
    """Every object takes the priors that are closest to it, however far these are.

    1. For each object, its ``per_object`` closest priors by NWD are positive; of equal ones the first count.
    2. A prior that several objects take goes to the closest one, of equals to the first.
    3. All others are negative.

    Priors outside of the image (``priors.valid``) take no part: state -1. ``quality`` is the NWD with the object that
    took the prior, 0 for priors that none took.

    Source: Xu et al., Detecting Tiny Objects in Aerial Images: A Normalized Wasserstein Distance and A New Benchmark
    (arXiv:2206.13996), section 4.2 (RKA); the distance is that of arXiv:2110.13389.

    Args:
        per_object: Priors that each object takes (k in the paper).
        size: The dataset's typical size of an object, in pixels; 12.8 is AI-TOD's.
    """

    def __init__(
        self,
        *,
        per_object: Annotated[int, Field(ge=1)] = 2,
        size: Annotated[float, Field(gt=0)] = 12.8,
    ) -> None:
        self.per_object, self.size = per_object, size

    @torch.no_grad()
    def assign(
        self,
        priors: Priors,
        targets: Targets,
        predictions: Predictions | None = None,
        batch: ImageBatch | None = None,
    ) -> Assignment:
        """See :class:`detcore.interfaces.Assigner`; reads priors and targets only."""
        boxes = as_gaussian(priors.per_image(len(targets)))
        # rows that take no part get safe values first, then distances that nothing is closer than
        objects = as_gaussian(torch.where(targets.matchable[..., None], targets.boxes, 0).to(boxes.dtype))
        taken, gt_index = self.claims(boxes, objects, priors, targets)
        positive = taken.isfinite()
        state = torch.where(positive, POSITIVE, NEGATIVE).to(torch.int8)
        if priors.valid is not None:
            state = state.masked_fill(~priors.valid, IGNORED)
        quality = torch.where(positive, closeness(torch.where(positive, taken, 0), self.size), 0)
        return Assignment(gt_index.where(positive, 0), state, quality)

    def claims(
        self, boxes: Float[Tensor, "B N 4"], objects: Float[Tensor, "B M 4"], priors: Priors, targets: Targets
    ) -> tuple[Tensor, Tensor]:
        """The least squared distance by which some object takes each prior (infinite where none), and that object."""
        best = torch.full(boxes.shape[:2], torch.inf, dtype=boxes.dtype, device=boxes.device)
        owner = torch.zeros(boxes.shape[:2], dtype=torch.int64, device=boxes.device)
        count = min(self.per_object, boxes.shape[1])
        for start in range(0, objects.shape[1] if count else 0, CHUNK):
            some = slice(start, start + CHUNK)
            squared = (objects[:, some, None] - boxes[:, None]).square().sum(dim=-1)  # [B, CHUNK, N]
            squared = squared.masked_fill(~targets.matchable[:, some, None], torch.inf)
            if priors.valid is not None:
                squared = squared.masked_fill(~priors.valid[:, None], torch.inf)
            # a stable sort, unlike topk, takes the first of equals
            closest = squared.sort(dim=2, stable=True).indices[..., :count]
            kept = torch.full_like(squared, torch.inf).scatter(2, closest, squared.gather(2, closest))
            nearest, row = kept.min(dim=1)
            owner = torch.where(nearest < best, row + start, owner)
            best = torch.minimum(nearest, best)
        return best, owner
