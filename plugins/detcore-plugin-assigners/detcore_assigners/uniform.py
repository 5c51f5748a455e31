"""Assignment of equally many priors to every ground truth."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from detcore.boxes import aligned_overlap
from detcore.interfaces import Assigner
from detcore.structures import (
    IGNORED,
    NEGATIVE,
    POSITIVE,
    Assignment,
    ImageBatch,
    Pairs,
    Predictions,
    Priors,
    Targets,
)
from detcore_assigners.choice import gathered, nearest, resolve
from detcore_assigners.overlaps import BoxOverlaps, slices
from detcore_assigners.regions import ignored_priors

Fraction = Annotated[float, Field(ge=0, le=1)]


class _Matches(NamedTuple):
    """The choices of every ground truth: first by prediction, then by prior, each from near to far.

    Args:
        prior: The chosen prior.
        chosen: Whether it takes part; else there were too few.
        iou: IoU of the prior, not the prediction, with the ground truth.
        good: Whether it is a match, the IoU being high enough.
    """

    prior: Int[Tensor, "B M k"]
    chosen: Bool[Tensor, "B M k"]
    iou: Float[Tensor, "B M k"]
    good: Bool[Tensor, "B M k"]


class UniformAssigner(Assigner):
    """A ground truth, large or small, takes the same number of priors: those nearest to it.

    1. Each ground truth chooses the ``match_times`` priors whose predicted boxes are nearest to it, and the
       ``match_times`` priors that are nearest themselves (one prior may be chosen both ways); near by the sum
       of absolute differences of centre, width and height. Of equally near ones the first; all where there
       are fewer.
    2. A choice whose prior has an IoU of at least ``pos_ignore_thr`` with the ground truth is a match.
    3. A prior with a match is positive, for the ground truth of the highest such IoU (of equal ones the first);
       one with other choices only is ignored; one without any is ignored where its predicted box has an IoU
       above ``neg_ignore_thr`` with some ground truth, else negative.

    ``pairs`` holds all choices, [B, M x 2 ``match_times``], those of a ground truth together, with ``valid`` for
    the matches: the box loss is taken over them. ``quality`` is the IoU of a positive prior with its ground
    truth, else 0. Priors outside of the image (``priors.valid``) and in regions to ignore take no part: -1.

    Chen et al., "You Only Look One-level Feature" (arXiv:2103.09460).

    Args:
        pos_ignore_thr: IoU of prior and ground truth below which a choice is not a match.
        neg_ignore_thr: IoU of predicted box and ground truth above which a prior is not negative.
        match_times: Choices by prediction, and choices by prior, of each ground truth.
        ignore_iof_thr: Priors with more than this part inside a region to ignore take no part. None or -1:
            regions to ignore have no effect, as in the reference; what they hold is background.
        last_choice_wins: True settles a prior with several choices as the reference does: by the last of them,
            first by rank, then choices by prior after those by prediction, then by ground truth. The farther
            wins, and it may make an ignored prior of a match.
        first_of_equals: False leaves the choice among equally near priors to ``torch.topk``, as the reference
            does; it may differ between devices.
    """

    needs = frozenset({"boxes"})

    def __init__(
        self,
        *,
        pos_ignore_thr: Fraction,
        neg_ignore_thr: Fraction,
        match_times: Annotated[int, Field(ge=1)] = 4,
        ignore_iof_thr: Annotated[float, Field(gt=0, le=1)] | Literal[-1] | None = 0.5,
        last_choice_wins: bool = False,
        first_of_equals: bool = True,
    ) -> None:
        self.pos_ignore_thr = pos_ignore_thr
        self.neg_ignore_thr = neg_ignore_thr
        self.match_times = match_times
        self.ignore_iof_thr = None if ignore_iof_thr == -1 else ignore_iof_thr
        self.last_choice_wins = last_choice_wins
        self.first_of_equals = first_of_equals

    @torch.no_grad()
    def assign(
        self,
        priors: Priors,
        targets: Targets,
        predictions: Predictions | None = None,
        batch: ImageBatch | None = None,
    ) -> Assignment:
        """See :meth:`detcore.interfaces.Assigner.assign`; reads priors and predicted boxes.

        Raises:
            ValueError: Predictions are missing, or of another number of priors.
        """
        if predictions is None or predictions.boxes.shape[1] != len(priors):
            got = None if predictions is None else f"boxes {list(predictions.boxes.shape)}"
            raise ValueError(
                f"UniformAssigner needs predictions with a decoded box for each of {len(priors)} priors, got {got}"
            )
        part = ~ignored_priors(priors, targets, self.ignore_iof_thr)
        if priors.valid is not None:
            part = part & priors.valid
        matches = self._match(priors, targets, predictions, part)
        near = self._near(predictions, targets)
        state = torch.where(near | ~part, IGNORED, NEGATIVE).to(torch.int8)
        settle = self._last if self.last_choice_wins else self._best
        gt_index, quality, positive, chosen = settle(matches, len(priors))
        state = state.masked_fill(chosen, IGNORED).masked_fill(positive, POSITIVE)
        images, rows, count = matches.prior.shape
        row = torch.arange(rows, device=state.device)[:, None].expand(images, rows, count)
        pairs = Pairs(matches.prior.flatten(1), row.flatten(1), matches.good.flatten(1))
        return Assignment(gt_index, state, quality, pairs)

    def _match(
        self, priors: Priors, targets: Targets, predictions: Predictions, part: Bool[Tensor, "B N"]
    ) -> _Matches:
        """The choices of every ground truth."""
        boxes = targets.boxes.float()
        anchors = priors.per_image(len(targets)).float()
        prior = torch.cat(
            [self._nearest(side, boxes, part) for side in (predictions.boxes.float(), anchors)], dim=2
        )
        chosen = gathered(part, prior) & targets.matchable[..., None]
        own = anchors.gather(1, prior.flatten(1)[..., None].expand(-1, -1, 4))
        # a prior or ground truth that takes no part is not to have an overlap with anything
        iou = aligned_overlap(own.reshape(*prior.shape, 4), boxes[:, :, None]).masked_fill(~chosen, 0.0)
        return _Matches(prior, chosen, iou, chosen & (iou >= self.pos_ignore_thr))

    def _nearest(
        self, boxes: Float[Tensor, "B N 4"], rows: Float[Tensor, "B M 4"], part: Bool[Tensor, "B N"]
    ) -> Int[Tensor, "B M k"]:
        """The boxes nearest to each row."""
        images, count = part.shape
        ours, theirs = _middle_and_size(boxes[:, None]), _middle_and_size(rows[:, :, None])
        k = min(self.match_times, count)
        # written in place: small results kept between large temporaries would keep the heap from reusing those
        found = torch.zeros((images, rows.shape[1], k), dtype=torch.int64, device=rows.device)
        for start, stop in slices(rows.shape[1], images * count):
            x, y, width, height = (
                (our - their[:, start:stop]).abs_() for our, their in zip(ours, theirs, strict=True)
            )
            distance = x.add_(y).add_(width).add_(height)
            distance = distance.masked_fill_(~part[:, None], torch.inf)
            found[:, start:stop] = nearest(distance, k, first_of_equals=self.first_of_equals)
        return found

    def _near(self, predictions: Predictions, targets: Targets) -> Bool[Tensor, "B N"]:
        """The priors whose predicted box overlaps some ground truth too well for a negative."""
        rows = torch.where(targets.matchable[..., None], targets.boxes.float(), 0.0)
        overlaps = BoxOverlaps(rows, predictions.boxes.float())
        near = torch.zeros(predictions.boxes.shape[:2], dtype=torch.bool, device=rows.device)
        for start, stop in slices(near.shape[1], targets.valid.numel()):
            near[:, start:stop] = overlaps(start, stop).amax(dim=1) > self.neg_ignore_thr
        return near

    def _best(self, matches: _Matches, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Ground truth, quality, positive and chosen of each prior; the highest IoU wins."""
        gt_index, quality, positive = resolve(matches.prior, matches.iou, matches.good, count)
        _, _, chosen = resolve(matches.prior, matches.iou, matches.chosen, count)
        return gt_index, quality, positive, chosen

    def _last(self, matches: _Matches, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same, by the reference's order of writing."""
        images, rows, choices = matches.prior.shape
        if choices == 0:  # no priors, nothing to settle
            return self._best(matches, count)
        k = choices // 2
        ways = torch.arange(choices, device=matches.prior.device)
        order = ((ways % k) * 2 + ways // k) * rows
        order = order + torch.arange(rows, device=order.device)[:, None]
        order = torch.where(matches.chosen, order, -1).flatten(1)
        last = order.new_full((images, count), -1).scatter_reduce(1, matches.prior.flatten(1), order, "amax")
        chosen, last = last >= 0, last.clamp(min=0)
        row, place = last % rows, last // rows
        choice = (row * choices + (place % 2) * k + place // 2).masked_fill(~chosen, 0)
        positive = chosen & matches.good.flatten(1).gather(1, choice)
        quality = matches.iou.flatten(1).gather(1, choice).masked_fill(~positive, 0.0)
        return row.masked_fill(~positive, 0), quality, positive, chosen


def _middle_and_size(boxes: Float[Tensor, "*S 4"]) -> tuple[Float[Tensor, "*S"], ...]:
    """Centre x and y, width and height."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
