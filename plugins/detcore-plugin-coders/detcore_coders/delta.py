"""Boxes as shifts and log scales of anchors or proposals."""

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
from detcore_coders.geometry import center_and_size, check_last_is_four, fill_empty

_Positive = Annotated[float, Field(gt=0)]


class DeltaXYWHBBoxCoder(BBoxCoder):
    """Shift of the centre in units of the prior's size, and log ratio of the sizes: (dx, dy, dw, dh).

    From "Rich feature hierarchies for accurate object detection and semantic segmentation" (arXiv 1311.2524).
    Codes are normalised: (delta - mean) / std.

    Args:
        target_means: Means of the deltas, in the order dx, dy, dw, dh.
        target_stds: Standard deviations of the deltas, in the same order.
        clip_border: Whether ``decode`` cuts boxes off at the image.
        add_ctr_clamp: Whether a decoded centre moves at most ``ctr_clamp`` pixels. As in "You Only Look
            One-level Feature" (arXiv 2103.09460), boxes may then become as small as their codes say.
        ctr_clamp: Largest move of a centre in x and in y, in pixels; unused without ``add_ctr_clamp``.
        wh_ratio_clip: Smallest ratio of a decoded side to the prior's; its inverse is the largest.
        limit_shrinking: Whether there is a smallest ratio. False limits growth alone, as torchvision and
            detectron2 do; with ``add_ctr_clamp`` there is none in any case.
        empty_size: Pixels that a side without length counts as in ``encode``, of box or prior. With 0 such a
            box gets the code minus infinity, as in MMDetection, and such a prior gives infinities and NaN.
    """

    def __init__(
        self,
        *,
        target_means: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
        target_stds: tuple[_Positive, _Positive, _Positive, _Positive] = (1.0, 1.0, 1.0, 1.0),
        clip_border: bool = True,
        add_ctr_clamp: bool = False,
        ctr_clamp: _Positive = 32.0,
        wh_ratio_clip: Annotated[float, Field(gt=0, le=1)] = 16 / 1000,
        limit_shrinking: bool = True,
        empty_size: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        self.target_means = target_means
        self.target_stds = target_stds
        self.clip_border = clip_border
        self.add_ctr_clamp = add_ctr_clamp
        self.ctr_clamp = ctr_clamp
        self.wh_ratio_clip = wh_ratio_clip
        self.limit_shrinking = limit_shrinking
        self.empty_size = empty_size
        self._is_normalised = any(target_means) or target_stds != (1.0,) * 4
        self._max_log_ratio = -math.log(wh_ratio_clip)

    def encode(self, priors: Priors, boxes: Float[Tensor, "*S 4"]) -> Encoded:
        """The normalised deltas [..., 4] of boxes [..., 4]; leading dimensions broadcast."""
        check_last_is_four("boxes", boxes)
        prior_center, prior_size = center_and_size(priors.boxes)
        center, size = center_and_size(boxes)
        prior_size = fill_empty(prior_size, self.empty_size)
        shift = (center - prior_center) / prior_size
        log_ratio = (fill_empty(size, self.empty_size) / prior_size).log()
        return Encoded(self._normalise(torch.cat((shift, log_ratio), dim=-1)))

    def decode(
        self, priors: Priors, codes: Float[Tensor, "*S 4"], sizes: Int[Tensor, "*B 2"] | None = None
    ) -> Float[Tensor, "*S 4"]:
        """The boxes that normalised deltas mean; see :class:`~detcore.interfaces.BBoxCoder`.

        Args:
            priors: Anchors or proposals.
            codes: [..., 4]; class-wise codes are [..., K, 4] with priors [..., 1, 4].
            sizes: (h, w) to clip to; [B, 2] means one per image of codes [B, N, 4].

        Raises:
            ValueError: The last dimension of ``codes`` is not 4.
        """
        check_last_is_four("codes", codes)
        deltas = self._denormalise(codes)
        prior_center, prior_size = center_and_size(priors.boxes)
        shift, log_ratio = deltas[..., :2] * prior_size, deltas[..., 2:]
        if self.add_ctr_clamp:
            shift = shift.clamp(-self.ctr_clamp, self.ctr_clamp)
        lowest = None if self.add_ctr_clamp or not self.limit_shrinking else -self._max_log_ratio
        log_ratio = log_ratio.clamp(min=lowest, max=self._max_log_ratio)
        center, half = prior_center + shift, prior_size * log_ratio.exp() * 0.5
        boxes = torch.cat((center - half, center + half), dim=-1)
        return geometry.clip(boxes, sizes) if self.clip_border and sizes is not None else boxes

    def _normalise(self, deltas: Float[Tensor, "*S 4"]) -> Float[Tensor, "*S 4"]:
        if not self._is_normalised:
            return deltas
        statistics = zip(deltas.unbind(-1), self.target_means, self.target_stds, strict=True)
        return torch.stack([(delta - mean) / std for delta, mean, std in statistics], dim=-1)

    def _denormalise(self, codes: Float[Tensor, "*S 4"]) -> Float[Tensor, "*S 4"]:
        if not self._is_normalised:
            return codes
        # numbers rather than a tensor of them, which would be a copy to the device in every call
        statistics = zip(codes.unbind(-1), self.target_means, self.target_stds, strict=True)
        return torch.stack([code * std + mean for code, mean, std in statistics], dim=-1)
