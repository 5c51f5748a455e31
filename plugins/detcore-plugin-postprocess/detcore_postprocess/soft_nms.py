"""Soft-NMS: scores are lowered instead of boxes dropped."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from detcore.boxes import aligned_overlap
from detcore.component import wired
from detcore_postprocess.interface import Suppressed, Suppression
from detcore_postprocess.lanes import cleaned, suppress_in_lanes
from detcore_postprocess.soft_picks import DONE, ROUND, pick_best
from detcore_postprocess.suppression import grown

Fraction = Annotated[float, Field(ge=0, le=1)]


class SoftNMS(Suppression):
    """The best remaining box is picked, and the scores of those that it overlaps are lowered; and so on.

    1. Of the boxes left in a group, the one with the highest score is picked with that score.
    2. The others' scores are multiplied by a weight w(IoU with it):
       "linear" 1 - IoU from ``iou_threshold`` on; "gaussian" exp(-IoU^2 / ``sigma``);
       "naive" 0 from ``iou_threshold`` on, which is NMS but for boxes exactly at the threshold.
    3. Boxes below ``min_score`` are dropped.

    Scores change on the way, so that the order of picks is not that of the scores given. Of equal ones the first
    is picked; the reference leaves that open. It also keeps an image's best box even where that is below
    ``min_score``; here nothing below it is kept.

    Where only the ``most`` best results of an image are asked for, there are as many steps, each of which works on
    one group per image. Otherwise all groups advance together, and there are as many steps as the largest has
    boxes. Under ``torch.export`` the steps are unrolled.

    Bodla et al., "Soft-NMS: Improving Object Detection With One Line of Code" (arXiv:1704.04503).

    Args:
        method: How scores are lowered.
        iou_threshold: Least IoU, itself included, at which "linear" and "naive" lower a score. Supplied by the
            owner where it is not stated.
        sigma: Width of "gaussian"; smaller ones lower scores more.
        min_score: Least score of a result, itself included.
        offset: Added to widths and heights; see :class:`NMS`.
    """

    def __init__(
        self,
        *,
        method: Literal["linear", "gaussian", "naive"] = "linear",
        iou_threshold: Fraction = wired(0.3, may_override=True),
        sigma: Annotated[float, Field(gt=0)] = 0.5,
        min_score: Fraction = 0.001,
        offset: Literal[0, 1] = 0,
    ) -> None:
        self.method = method
        self.iou_threshold = iou_threshold
        self.sigma = sigma
        self.min_score = min_score
        self.offset = offset

    @torch.no_grad()
    def __call__(
        self,
        boxes: Float[Tensor, "B T 4"],
        scores: Float[Tensor, "B T"],
        groups: Int[Tensor, "B T"],
        *,
        valid: Bool[Tensor, "B T"] | None = None,
        most: int | None = None,
    ) -> Suppressed:
        """See :class:`Suppression`. Beyond the ``most`` best of an image nothing needs to be kept."""
        boxes = grown(boxes, self.offset)
        if most is not None and not torch.compiler.is_compiling():
            boxes, scores, valid = cleaned(boxes, scores, valid)
            return pick_best(boxes, scores, groups, valid, most, self._weight, self.min_score)

        def method(boxes: Tensor, scores: Tensor, groups: Tensor | None, valid: Tensor) -> Suppressed:
            picks = boxes.shape[1] if most is None else min(most, boxes.shape[1])
            return self._pick(boxes, scores, groups, valid, picks)

        return suppress_in_lanes(method, boxes, scores, groups, valid, by_score=False)

    def _pick(
        self, boxes: Tensor, scores: Tensor, groups: Tensor | None, valid: Tensor, picks: int
    ) -> Suppressed:
        """Up to ``picks`` results of each lane."""
        final = torch.full_like(scores, DONE)
        left = _Left(boxes, self._alive(scores.masked_fill(~valid, DONE)), groups, _slots(scores))
        for step in range(picks):
            if step % ROUND == 0 and not torch.compiler.is_compiling():
                left = left.compact()
                if not left.scores.shape[1]:
                    break
            best, at = left.scores.max(dim=1, keepdim=True)  # the first of equal ones
            slot = left.slots.gather(1, at)
            final.scatter_(1, slot, torch.maximum(best, final.gather(1, slot)))
            own = left.boxes.gather(1, at[..., None].expand(-1, -1, 4))
            weight = self._weight(aligned_overlap(own, left.boxes))
            if left.groups is not None:
                weight = torch.where(left.groups == left.groups.gather(1, at), weight, 1)
            scores = torch.where(left.scores > DONE, left.scores * weight, DONE)
            left = left._replace(scores=self._alive(scores.scatter(1, at, DONE)))
        return Suppressed(final.clamp(min=0), final > DONE)

    def _alive(self, scores: Tensor) -> Tensor:
        return scores.masked_fill(scores < self.min_score, DONE)

    def _weight(self, overlaps: Float[Tensor, "R L"]) -> Float[Tensor, "R L"]:
        if self.method == "gaussian":
            return torch.exp(-overlaps.square() / self.sigma)
        lowered = 1 - overlaps if self.method == "linear" else torch.zeros_like(overlaps)
        return torch.where(overlaps >= self.iou_threshold, lowered, 1)


class _Left(NamedTuple):
    """What is not picked yet; ``slots`` are the places in the lane as it was given."""

    boxes: Float[Tensor, "R L 4"]
    scores: Float[Tensor, "R L"]
    groups: Int[Tensor, "R L"] | None
    slots: Int[Tensor, "R L"]

    def compact(self) -> _Left:
        """Without boxes that are done, in the same order; lanes that have fewer than others are padded."""
        alive = self.scores > DONE
        width = int(alive.sum(1).amax()) if alive.numel() else 0
        if 4 * width > 3 * alive.shape[1]:
            return self
        order = alive.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :width]
        return _Left(
            self.boxes.gather(1, order[..., None].expand(-1, -1, 4)),
            self.scores.gather(1, order),
            None if self.groups is None else self.groups.gather(1, order),
            self.slots.gather(1, order),
        )


def _slots(scores: Float[Tensor, "R L"]) -> Int[Tensor, "R L"]:
    return torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
