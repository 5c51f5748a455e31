"""Matching in which a ground truth takes as many priors as their IoUs with it add up to."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detcore.boxes import aligned_overlap, area
from detcore.structures import IGNORED, NEGATIVE, POSITIVE, Assignment, Predictions, Targets
from detcore_assigners.blocks import Block, blocks
from detcore_assigners.choice import smallest
from detcore_assigners.overlaps import overlap_of_columns

#: What the logarithm of an overlap of 0 is taken of.
LOG_EPS = 1e-7


class PairTerms(NamedTuple):
    """What is known of a block's pairs of ground truths and priors.

    Args:
        cost: Of the match; infinite where there is none to be.
        iou: Of ground truth and predicted box; 0 where the prior is nobody's candidate.
    """

    cost: Float[Tensor, "b m N"]
    iou: Float[Tensor, "b m N"]

    @classmethod
    def of(
        cls,
        cost: Float[Tensor, "b m N"],
        iou: Float[Tensor, "b m N"],
        allowed: Bool[Tensor, "b #m N"],
        candidates: Bool[Tensor, "b 1 N"],
    ) -> PairTerms:
        """Pairs of which only ``allowed`` ones match; their costs become finite, should they not be.

        Works in place on ``cost`` and ``iou``.
        """
        most = torch.finfo(cost.dtype).max
        cost = cost.nan_to_num_(nan=most, posinf=most, neginf=-most)
        return cls(cost.masked_fill_(~allowed, torch.inf), iou.masked_fill_(~candidates, 0.0))


def dynamic_k_matching(
    pairs: Callable[[Block], PairTerms], matchable: Bool[Tensor, "B M"], count: int, topk: int
) -> tuple[Int[Tensor, "B N"], Bool[Tensor, "B N"]]:
    """Matches priors to ground truths.

    1. A ground truth takes k priors: the sum of its ``topk`` highest IoUs, its whole part, at least 1.
    2. These are the k of the lowest costs (of equal ones the first); fewer where fewer may match.
    3. A prior that several take goes to the ground truth to which it costs least (of equal ones the first),
       be it one of those that took it or not.

    Args:
        pairs: Gives the costs and IoUs of a block.
        matchable: Rows that are ground truths.
        count: N.
        topk: IoUs that are added up.

    Returns:
        The ground truth of each prior (0 where there is none), and whether there is any.
    """
    cheapest = torch.full((len(matchable), count), torch.inf, device=matchable.device)
    cheapest_row = torch.zeros_like(cheapest, dtype=torch.int64)
    claims, claimant = torch.zeros_like(cheapest_row), torch.zeros_like(cheapest_row)
    topk = min(topk, count)
    rank = torch.arange(topk, device=matchable.device)
    for block in blocks(matchable, count):
        images, first = block.images, block.rows.start
        cost, iou = pairs(block)
        cost = cost.masked_fill(~block.of(matchable)[..., None], torch.inf)
        taken = iou.topk(topk, dim=2).values.sum(dim=2).int().clamp(min=1)
        best = smallest(cost, topk)
        chosen = (rank < taken[..., None]) & (cost.gather(2, best) < torch.inf)
        row = torch.arange(first, first + cost.shape[1], device=images.device)[:, None].expand_as(best)
        best, chosen, row = best.flatten(1), chosen.flatten(1).long(), row.flatten(1)
        claims[images] = claims[images].scatter_add(1, best, chosen)
        claimant[images] = claimant[images].scatter_reduce(1, best, row * chosen, "amax")
        least, least_row = cost.min(dim=1)
        better = least < cheapest[images]
        cheapest_row[images] = torch.where(better, least_row + first, cheapest_row[images])
        cheapest[images] = torch.minimum(least, cheapest[images])
    return torch.where(claims > 1, cheapest_row, claimant), claims > 0


class PredictedOverlaps:
    """IoU of ground truths with predicted boxes; bit for bit that of ``detcore.boxes``.

    Args:
        boxes: Decoded boxes.
        targets: Ground truth.
    """

    def __init__(self, boxes: Float[Tensor, "B N 4"], targets: Targets) -> None:
        self._boxes, self._gts = boxes.float(), targets.boxes.float()

    def __call__(self, block: Block) -> Float[Tensor, "b m N"]:
        """The IoU of a block's pairs."""
        rows, boxes = block.of(self._gts)[..., None, :], self._boxes[block.images][:, None]
        columns = [c.contiguous() for c in (*boxes.unbind(-1), area(boxes))]
        overlaps = overlap_of_columns([*rows.unbind(-1), area(rows)], columns, "union")
        return overlaps.nan_to_num_(nan=0.0, posinf=0.0)  # what diverged overlaps with nothing


def candidate_priors(
    near: Callable[[Block], Bool[Tensor, "b m N"]], matchable: Bool[Tensor, "B M"], part: Bool[Tensor, "B N"]
) -> Bool[Tensor, "B N"]:
    """The priors that take part and are near to some ground truth."""
    found = torch.zeros_like(part)
    for block in blocks(matchable, part.shape[1]):
        found[block.images] = found[block.images] | near(block).any(dim=1)
    return found & part


def columns(values: Float[Tensor, "B N C"], labels: Int[Tensor, "B M"], block: Block) -> Tensor:
    """The values of the class of each of the block's ground truths: [b, m, N]."""
    return values[block.images[:, None], :, block.of(labels)]


def assignment_of(
    gt_index: Int[Tensor, "B N"],
    found: Bool[Tensor, "B N"],
    part: Bool[Tensor, "B N"],
    predictions: Predictions,
    targets: Targets,
) -> Assignment:
    """The assignment; its quality is the IoU of a positive's predicted box with its ground truth, else 0.

    Args:
        gt_index: Ground truth of each prior.
        found: Which are positive.
        part: Which take part.
        predictions: Gives the decoded boxes.
        targets: Ground truth.
    """
    gt_index = gt_index.masked_fill(~found, 0)
    gts = targets.boxes.float().gather(1, gt_index[..., None].expand(-1, -1, 4))
    quality = aligned_overlap(predictions.boxes.float(), gts).nan_to_num(nan=0.0, posinf=0.0)
    state = torch.full_like(gt_index, NEGATIVE, dtype=torch.int8)
    state = state.masked_fill(~part, IGNORED).masked_fill(found, POSITIVE)
    return Assignment(gt_index, state, quality.masked_fill(~found, 0.0))
