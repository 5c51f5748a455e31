"""Assignment of the priors at the centre of a ground truth."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from detcore.boxes import area
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
from detcore_assigners.class_pairs import ClassPairs
from detcore_assigners.overlaps import BoxOverlaps, slices
from detcore_assigners.regions import ignored_centers, scaled

Scale = Annotated[float, Field(gt=0)]


class CenterRegionAssigner(Assigner):
    """The centre of a ground truth is positive; what lies around it is ignored, for its class only.

    For each ground truth, its box scaled by ``pos_scale`` is its core, scaled by ``neg_scale`` its shadow.

    1. A prior is in the core if its centre is inside of the ground truth and more than ``min_pos_iof`` of its
       area inside of the core; it is in the shadow if it is not in the core, and more than ``min_pos_iof`` of
       its area is inside of the shadow.
    2. It is positive for the smallest ground truth whose core it is in (of equal areas the last), and in the
       shadow of the others.
    3. Where it is positive and in the shadow of another ground truth of the same class, it becomes
       negative and stays in the shadow; with ``foreground_dominate`` it stays positive and leaves it.

    All other priors are negative, but a class does not count for a prior in the shadow of that class:
    ``ignored_pairs`` holds these (prior, ground truth) pairs, one per class (the first such ground truth),
    also of priors that are ignored altogether. Priors in a region to ignore and outside of the
    image (``priors.valid``) have state -1. ``quality`` is 1 for positives, else 0. Priors need an area: a
    point is in no core.

    Zhu et al., "Feature Selective Anchor-Free Module" (arXiv:1903.00621).

    Args:
        pos_scale: Factor of width and height for the core.
        neg_scale: Factor of width and height for the shadow.
        min_pos_iof: Part of a prior that has to be inside.
        ignore_gt_scale: Priors whose centre is inside of a region to ignore, its width and height times this,
            are ignored. None: regions have no effect.
        foreground_dominate: Whether a positive in the shadow of its own class stays positive.

    Raises:
        ConfigError: ``neg_scale`` is below ``pos_scale``.
    """

    def __init__(
        self,
        *,
        pos_scale: Scale,
        neg_scale: Scale,
        min_pos_iof: Annotated[float, Field(ge=0, lt=1)] = 1e-2,
        ignore_gt_scale: Scale | None = 0.5,
        foreground_dominate: bool = False,
    ) -> None:
        if neg_scale < pos_scale:
            raise ValueError(
                f"neg_scale should be at least pos_scale ({pos_scale}): the shadow surrounds the core; got "
                f"{neg_scale}"
            )
        self.pos_scale = pos_scale
        self.neg_scale = neg_scale
        self.min_pos_iof = min_pos_iof
        self.ignore_gt_scale = ignore_gt_scale
        self.foreground_dominate = foreground_dominate

    @torch.no_grad()
    def assign(
        self,
        priors: Priors,
        targets: Targets,
        predictions: Predictions | None = None,
        batch: ImageBatch | None = None,
    ) -> Assignment:
        """See :meth:`detcore.interfaces.Assigner.assign`; reads boxes and targets only."""
        out = ignored_centers(priors, targets, self.ignore_gt_scale)
        boxes = priors.boxes.float()
        if priors.valid is not None:  # a box without area is in no core and in no shadow
            out, boxes = out | ~priors.valid, torch.where(priors.valid[..., None], boxes, 0.0)
        regions = _Regions(self, boxes, targets)
        gt_index = torch.zeros(out.shape, dtype=torch.int64, device=out.device)
        positive, shadows = torch.zeros_like(out), ClassPairs(targets.labels)
        for start, stop in slices(len(priors), targets.valid.numel()):
            here = slice(start, stop)
            winner, found, shadow = regions.slice(start, stop)
            found = found & ~out[:, here]
            own = torch.where(found, targets.labels.gather(1, winner), -1)
            twice = shadow & (targets.labels[..., None] == own[:, None])
            if self.foreground_dominate:
                shadow = shadow & ~twice
            else:
                found = found & ~twice.any(dim=1)
            gt_index[:, here], positive[:, here] = torch.where(found, winner, 0), found
            shadows.add(shadow, start)
        state = torch.full_like(gt_index, NEGATIVE, dtype=torch.int8)
        state = state.masked_fill(out, IGNORED).masked_fill(positive, POSITIVE)
        return Assignment(gt_index, state, positive.float(), ignored_pairs=shadows.stacked())


class _Regions:
    """Cores and shadows of the ground truths, looked up for a slice of priors.

    Args:
        rule: The scales and the threshold.
        boxes: Priors, without area where they take no part.
        targets: Ground truth.
    """

    def __init__(self, rule: CenterRegionAssigner, boxes: Float[Tensor, "*B N 4"], targets: Targets) -> None:
        rows = torch.where(targets.matchable[..., None], targets.boxes.float(), 0.0)
        self.threshold = rule.min_pos_iof
        self.core = BoxOverlaps(scaled(rows, rule.pos_scale), boxes, "prior")
        self.shadow = BoxOverlaps(scaled(rows, rule.neg_scale), boxes, "prior")
        self._rows = [c[..., None] for c in rows.unbind(-1)]
        centers = (boxes[..., 2:] + boxes[..., :2]) / 2
        self._centers = [c.contiguous().unsqueeze(-2) for c in centers.unbind(-1)]
        #: Rows from large to small, equal ones in order; and the place of each row among them.
        self._by_size = area(rows).argsort(dim=1, descending=True, stable=True)
        # as floats, exact for 16 million rows: integers are reduced several times slower
        self._place = self._by_size.argsort(dim=1).float()[..., None]

    def slice(
        self, start: int, stop: int
    ) -> tuple[Int[Tensor, "B n"], Bool[Tensor, "B n"], Bool[Tensor, "B M n"]]:
        """For priors ``start`` to ``stop``: the winning row, whether there is one, and whose shadow they are in."""
        core = (self.core(start, stop) > self.threshold) & self._inside(start, stop)
        shadow = self.shadow(start, stop) > self.threshold
        best = torch.where(core, self._place, -1.0).amax(dim=1)
        # in the shadow: outside of the core, or in the core without having won
        shadow = torch.where(core, self._place != best[:, None], shadow)
        winner = self._by_size.gather(1, best.clamp(min=0).long())
        return winner, best >= 0, shadow

    def _inside(self, start: int, stop: int) -> Bool[Tensor, "B M n"]:
        x1, y1, x2, y2 = self._rows
        x, y = (c[..., start:stop] for c in self._centers)
        return (x > x1) & (x < x2) & (y > y1) & (y < y2)
