"""Sides of boxes by the bucket that they lie in, and where within it."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from detcore import boxes as geometry
from detcore.interfaces import BBoxCoder
from detcore.structures import Encoded, Priors
from detcore_coders.geometry import center_and_size, fill_empty


class BucketingBBoxCoder(BBoxCoder):
    """For each side of a box the bucket nearest to it, and its distance from buckets: 8 S numbers per box.

    The prior, enlarged by ``scale_factor``, is cut into ``num_buckets`` strips in x and in y. A side is sought in
    the S = ceil(num_buckets / 2) strips of its half, counted from outside. A code is [..., 4 S] bucket logits, then
    [..., 4 S] offsets, each with the sides in the order left, right, top, bottom; both are kept as
    ``codes.unflatten(-1, (2, 4, S))``. An encoded box has 1 for the nearest bucket of each side in place of logits
    (the outer one of two as near), offsets from the middle of every bucket in units of its width, and weights for
    all of these numbers.

    Wang et al., "Side-Aware Boundary Localization for More Precise Object Detection" (arXiv 1912.04260).

    Args:
        num_buckets: Strips along each axis.
        scale_factor: Factor on the sides of priors before they are cut into strips.
        offset_topk: Of how many of the nearest buckets the offsets have a weight.
        offset_upperbound: Except for the nearest bucket, only offsets below it have one.
        cls_ignore_neighbor: Whether buckets that are not nearest, but less than their width away, have no weight in
            classification.
        clip_border: Whether ``decode`` cuts boxes off at the image.
        legacy_clip: Whether it does so at the last pixel, (w - 1, h - 1), as MMDetection.
        empty_size: Pixels that a prior's side without length counts as in ``encode``. With 0 it gives infinities and
            NaN, as in MMDetection.

    Raises:
        ConfigError: ``offset_topk`` is higher than the number of buckets of a side.
    """

    def __init__(
        self,
        *,
        num_buckets: Annotated[int, Field(ge=3)],
        scale_factor: Annotated[float, Field(gt=0)],
        offset_topk: Annotated[int, Field(ge=1)] = 2,
        offset_upperbound: Annotated[float, Field(ge=0)] = 1.0,
        cls_ignore_neighbor: bool = True,
        clip_border: bool = True,
        legacy_clip: bool = False,
        empty_size: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        self.num_buckets, self.scale_factor = num_buckets, scale_factor
        self.side_buckets = math.ceil(num_buckets / 2)
        if offset_topk > self.side_buckets:
            raise ValueError(
                f"offset_topk={offset_topk} is more than the {self.side_buckets} buckets that each side has with "
                f"num_buckets={num_buckets}; lower it, or take more buckets"
            )
        self.offset_topk, self.offset_upperbound = offset_topk, offset_upperbound
        self.cls_ignore_neighbor = cls_ignore_neighbor
        self.clip_border, self.legacy_clip, self.empty_size = clip_border, legacy_clip, empty_size
        self.code_size = self.target_size = 8 * self.side_buckets

    def encode(self, priors: Priors, boxes: Float[Tensor, "*S 4"]) -> Encoded:
        """The targets [..., 8 S] of boxes [..., 4] and their weights; leading dimensions broadcast."""
        middles, width = self._buckets(priors, self.empty_size)
        x1, y1, x2, y2 = boxes.unbind(-1)
        sides = torch.stack((x1, x2, y1, y2), dim=-1)[..., None]
        offsets = (middles - sides) / width
        distance = offsets.abs()
        # the order of equally near buckets is that of the buckets
        place = distance.argsort(dim=-1, stable=True).argsort(dim=-1)
        nearest = place == 0
        offset_weights = nearest | ((place < self.offset_topk) & (distance < self.offset_upperbound))
        class_weights = torch.ones_like(offsets)
        if self.cls_ignore_neighbor:
            class_weights = (nearest | (distance >= 1)).to(offsets.dtype)
        return Encoded(
            torch.stack((nearest.to(offsets.dtype), offsets), dim=-3).flatten(-3),
            torch.stack((class_weights, offset_weights.to(offsets.dtype)), dim=-3).flatten(-3),
        )

    def decode(
        self, priors: Priors, codes: Float[Tensor, "*S D"], sizes: Int[Tensor, "*B 2"] | None = None
    ) -> Float[Tensor, "*S 4"]:
        """The boxes that codes mean; see :class:`~detcore.interfaces.BBoxCoder`.

        Args:
            priors: Anchors or proposals.
            codes: [..., 8 S].
            sizes: (h, w) to clip to; [B, 2] means one per image of codes [B, N, 8 S].

        Raises:
            ValueError: The last dimension of ``codes`` is not 8 S.
        """
        logits, offsets = self._split(codes)
        middles, width = self._buckets(priors)
        best = logits.argmax(dim=-1, keepdim=True)
        places = middles - offsets * width
        x1, x2, y1, y2 = places.gather(-1, best.expand(*places.shape[:-1], 1)).squeeze(-1).unbind(-1)
        boxes = torch.stack((x1, y1, x2, y2), dim=-1)
        if sizes is None or not self.clip_border:
            return boxes
        return geometry.clip(boxes, sizes - 1 if self.legacy_clip else sizes)

    def confidence(self, codes: Float[Tensor, "*S D"]) -> Float[Tensor, "*S"]:
        """How sure the buckets are, 0 to 1: by it scores are multiplied.

        The mean over the sides of the probability of the best bucket, and of the second best where the two are
        neighbours.
        """
        logits, _ = self._split(codes)
        (best, second), (own, other) = (x.unbind(-1) for x in logits.softmax(dim=-1).topk(2, dim=-1))
        return (best + second * ((own - other).abs() == 1)).mean(dim=-1)

    def _split(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and offsets of the buckets, each [..., 4, S]."""
        if not codes.dim() or codes.shape[-1] != self.code_size:
            raise ValueError(
                f"codes should have shape [..., {self.code_size}] with num_buckets={self.num_buckets}, "
                f"got {list(codes.shape)}"
            )
        parts = codes.reshape(*codes.shape[:-1], 2, 4, self.side_buckets)
        logits, offsets = parts.unbind(-3)
        return logits, offsets

    def _buckets(self, priors: Priors, empty_size: float = 0.0) -> tuple[Tensor, Tensor]:
        """The middle of each bucket [..., 4, S] and the width of a side's buckets [..., 4, 1], in pixels."""
        center, size = center_and_size(priors.boxes)
        size = fill_empty(size, empty_size) * self.scale_factor
        low, high, width = center - size * 0.5, center + size * 0.5, size / self.num_buckets
        edges = torch.stack((low, high), dim=-1).flatten(-2)[..., None]  # left, right, top, bottom
        width = width.repeat_interleave(2, dim=-1)[..., None]
        steps = torch.arange(self.side_buckets, device=size.device, dtype=size.dtype) + 0.5
        inwards = torch.tensor((1, -1, 1, -1), device=size.device, dtype=size.dtype)[:, None]
        return edges + inwards * steps * width, width
