"""Where priors lie relative to ground truths: inside them, and how far from their centres."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detcore.structures import Priors, Targets
from detcore_assigners.blocks import Block

#: Pixels by which a point lies inside of a box that it counts as inside of.
INSIDE = 0.01


def centers_inside(
    priors: Priors, targets: Targets, candidates: Int[Tensor, "B M k"]
) -> Bool[Tensor, "B M k"]:
    """Whether the centres of each ground truth's candidates lie inside of it, clear of its edges."""
    centers = priors.gather(candidates.flatten(1)).centers.float().reshape(*candidates.shape, 2)
    gts = targets.boxes.float()[:, :, None]
    return torch.cat((centers - gts[..., :2], gts[..., 2:] - centers), dim=-1).amin(dim=-1) > INSIDE


class Surroundings:
    """The centres of N priors among M ground truths, looked at block by block.

    Args:
        priors: N priors.
        targets: Ground truth.
    """

    def __init__(self, priors: Priors, targets: Targets) -> None:
        centers = priors.centers.float()
        self._centers = centers if centers.dim() == 3 else centers[None]
        self._strides = priors.strides.float()
        self._boxes = targets.boxes.float()
        self._matchable = targets.matchable

    def inside(self, block: Block) -> Bool[Tensor, "b m N"]:
        """Whether a prior's centre lies inside a ground truth, its edges excluded."""
        x, y = self._points(block)
        x1, y1, x2, y2 = block.of(self._boxes)[..., None, :].unbind(-1)
        within = (x > x1).logical_and_(x < x2).logical_and_(y > y1).logical_and_(y < y2)
        return within.logical_and_(block.of(self._matchable)[..., None])

    def within(self, block: Block, radius: float) -> Bool[Tensor, "b m N"]:
        """Whether a prior lies less than ``radius`` of its strides from the centre, both in x and in y."""
        dx, dy = self._offsets(block)
        near = (dx.abs_() < radius).logical_and_(dy.abs_() < radius)
        return near.logical_and_(block.of(self._matchable)[..., None])

    def distance(self, block: Block) -> Float[Tensor, "b m N"]:
        """How far a prior lies from the centre, in its strides."""
        dx, dy = self._offsets(block)
        return dx.square_().add_(dy.square_()).sqrt_()

    def _points(self, block: Block) -> tuple[Tensor, Tensor]:
        centers = self._centers if len(self._centers) == 1 else self._centers[block.images]
        x, y = centers[:, None].unbind(-1)
        return x, y

    def _offsets(self, block: Block) -> tuple[Tensor, Tensor]:
        boxes = block.of(self._boxes)
        center_x, center_y = ((boxes[..., :2] + boxes[..., 2:]) / 2)[..., None, :].unbind(-1)
        (x, y), (stride_x, stride_y) = self._points(block), self._strides.unbind(-1)
        return (x - center_x).div_(stride_x), (y - center_y).div_(stride_y)
