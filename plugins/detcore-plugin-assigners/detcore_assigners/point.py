"""Assignment of points to the ground truths of their level."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

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
from detcore_assigners.choice import nearest, packed, resolve
from detcore_assigners.levels import levels_of
from detcore_assigners.overlaps import slices
from detcore_assigners.regions import ignored_centers

#: Smallest width and height that a ground truth counts with, in pixels.
SMALLEST = 1e-6


class PointAssigner(Assigner):
    """A ground truth takes the points nearest to its centre, on the one level that fits its size.

    For each ground truth:

    1. its level is the whole part of log2(sqrt(w h) / ``scale``); of the levels that exist (log2 of their
       stride, whole part) it takes the nearest, of equally near ones the finer;
    2. it chooses the ``pos_num`` points of that level nearest to its centre, distances in x counted in its
       width, in y in its height (of equal ones the first); all where there are fewer.

    A point that several ground truths choose goes to the one it is nearest to (of equal ones the first). All
    other points are negative, but for those outside of the image (``priors.valid``) and in regions to ignore,
    which take no part: state -1. ``quality`` is 1 for positives, else 0: the method has no score.

    Yang et al., "RepPoints" (arXiv:1904.11490); there ``pos_num`` is 1.

    Args:
        scale: Size of a ground truth in strides of its level.
        pos_num: Points per ground truth.
        ignore_gt_scale: Points inside of a region to ignore, its width and height times this, take no part.
            None: regions to ignore have no effect, as in the reference; what they hold is background.
        first_of_equals: False leaves the choice among equally near points to ``torch.topk``, as the reference
            does; it may differ between devices.
    """

    needs = frozenset({"levels"})

    def __init__(
        self,
        *,
        scale: Annotated[float, Field(gt=0)] = 4,
        pos_num: Annotated[int, Field(ge=1)] = 3,
        ignore_gt_scale: Annotated[float, Field(gt=0)] | None = 1.0,
        first_of_equals: bool = True,
    ) -> None:
        self.scale = scale
        self.pos_num = pos_num
        self.ignore_gt_scale = ignore_gt_scale
        self.first_of_equals = first_of_equals

    @torch.no_grad()
    def assign(
        self,
        priors: Priors,
        targets: Targets,
        predictions: Predictions | None = None,
        batch: ImageBatch | None = None,
    ) -> Assignment:
        """See :meth:`detcore.interfaces.Assigner.assign`; reads centres and levels only.

        Raises:
            ValueError: The priors have no levels, or levels of other counts.
        """
        part = ~ignored_centers(priors, targets, self.ignore_gt_scale)
        if priors.valid is not None:
            part = part & priors.valid
        boxes = torch.where(targets.matchable[..., None], targets.boxes.float(), 0.0)
        candidates, distance = self._candidates(_by_exponent(priors), priors, boxes, targets.matchable, part)
        gt_index, _, found = resolve(candidates, -distance, distance < torch.inf, len(priors))
        state = torch.full_like(gt_index, NEGATIVE, dtype=torch.int8)
        state = state.masked_fill(~part, IGNORED).masked_fill(found, POSITIVE)
        return Assignment(gt_index, state, found.float())

    def _candidates(
        self,
        levels: dict[int, Int[Tensor, "n"]],
        priors: Priors,
        boxes: Float[Tensor, "B M 4"],
        matchable: Bool[Tensor, "B M"],
        part: Bool[Tensor, "B N"],
    ) -> tuple[Int[Tensor, "B M k"], Float[Tensor, "B M k"]]:
        """The points that each ground truth chooses, and their distances; infinite where there is none."""
        images, rows = matchable.shape
        center = (boxes[..., :2] + boxes[..., 2:]) / 2
        extent = (boxes[..., 2:] - boxes[..., :2]).clamp(min=SMALLEST)
        # one row more, for what is packed with an image that has more ground truths on a level
        candidates = torch.zeros((images, rows + 1, self.pos_num), dtype=torch.int64, device=boxes.device)
        distance = torch.full_like(candidates, torch.inf, dtype=torch.float32)
        exponent = self._exponents(extent, levels)
        for level, index in levels.items():
            here = matchable & (exponent == level)
            order = packed(here)
            count = min(self.pos_num, len(index))
            points = priors.centers.float()[..., index, :].expand(images, -1, -1)[:, None].unbind(-1)
            for start, stop in slices(order.shape[1], images * len(index)):
                row = order[:, start:stop]
                apart = torch.zeros((), device=boxes.device)
                for point, one, size in zip(points, center.unbind(-1), extent.unbind(-1), strict=True):
                    offset = (point - one.gather(1, row)[..., None]).div_(size.gather(1, row)[..., None])
                    apart = offset.square_().add_(apart)
                apart = apart.sqrt_().masked_fill_(~part[:, None, index], torch.inf)
                best = nearest(apart, count, first_of_equals=self.first_of_equals)
                row = torch.where(here.gather(1, row), row, rows)[..., None].expand(-1, -1, count)
                candidates[..., :count].scatter_(1, row, index[best])
                distance[..., :count].scatter_(1, row, apart.gather(2, best))
        return candidates[:, :rows], distance[:, :rows]

    def _exponents(
        self, extent: Float[Tensor, "B M 2"], levels: dict[int, Int[Tensor, "n"]]
    ) -> Int[Tensor, "B M"]:
        """log2 of the stride of each ground truth's level, as one that exists."""
        wanted = (torch.log2(extent / self.scale).sum(dim=-1) / 2).int()
        present = torch.tensor(sorted(levels) or [0], dtype=torch.int32, device=extent.device)
        return present[(wanted[..., None] - present).abs().argmin(dim=-1)]


def _by_exponent(priors: Priors) -> dict[int, Int[Tensor, "n"]]:
    """Which points there are for each whole log2 of a stride."""
    found: dict[int, list[Tensor]] = {}
    for level, here in levels_of(priors, "PointAssigner"):
        if level.count:
            index = torch.arange(here.start, here.stop, device=priors.boxes.device)
            found.setdefault(int(math.log2(level.stride[0])), []).append(index)
    return {exponent: torch.cat(index) for exponent, index in found.items()}
