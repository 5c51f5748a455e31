"""Deltas to boxes whose last pixel belongs to them."""

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


class LegacyDeltaXYWHBBoxCoder(BBoxCoder):
    """Deltas as :class:`DeltaXYWHBBoxCoder`, with widths and heights that are one pixel more: x2 - x1 + 1.

    For models trained with MMDetection 1.x or with other code of the time (R-CNN, arXiv 1311.2524), in which x2 and y2
    are the last pixels of a box. Decoded boxes are clipped to the last pixel, (w - 1, h - 1).

    Args:
        target_means: Means of the deltas, in the order dx, dy, dw, dh.
        target_stds: Standard deviations of the deltas, in the same order.
        clip_border: Whether ``decode`` cuts boxes off at the image.
        wh_ratio_clip: Smallest ratio of a decoded side to the prior's; its inverse is the largest.
        exact_decode: Whether ``decode`` takes the pixel back that ``encode`` adds. False leaves boxes half a pixel
            larger on each side, as MMDetection 2 and 3 do: better results were measured with models of the time.
        empty_size: Pixels that a side counts as in ``encode`` that has none even with the pixel more, of box or
            prior. With 0 such a box gets the code minus infinity or NaN, as in MMDetection.
    """

    def __init__(
        self,
        *,
        target_means: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
        target_stds: tuple[_Positive, _Positive, _Positive, _Positive] = (1.0, 1.0, 1.0, 1.0),
        clip_border: bool = True,
        wh_ratio_clip: Annotated[float, Field(gt=0, le=1)] = 16 / 1000,
        exact_decode: bool = True,
        empty_size: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        self.target_means, self.target_stds = target_means, target_stds
        self.clip_border, self.exact_decode, self.empty_size = clip_border, exact_decode, empty_size
        self._max_log_ratio = -math.log(wh_ratio_clip)

    def encode(self, priors: Priors, boxes: Float[Tensor, "*S 4"]) -> Encoded:
        """The normalised deltas [..., 4] of boxes [..., 4]; leading dimensions broadcast."""
        check_last_is_four("boxes", boxes)
        prior_center, prior_size = center_and_size(priors.boxes)
        center, size = center_and_size(boxes)
        prior_size = fill_empty(prior_size + 1, self.empty_size)
        shift = (center - prior_center) / prior_size
        log_ratio = (fill_empty(size + 1, self.empty_size) / prior_size).log()
        deltas = torch.cat((shift, log_ratio), dim=-1).unbind(-1)
        statistics = zip(deltas, self.target_means, self.target_stds, strict=True)
        return Encoded(torch.stack([(delta - mean) / std for delta, mean, std in statistics], dim=-1))

    def decode(
        self, priors: Priors, codes: Float[Tensor, "*S 4"], sizes: Int[Tensor, "*B 2"] | None = None
    ) -> Float[Tensor, "*S 4"]:
        """The boxes that normalised deltas mean; see :class:`~detcore.interfaces.BBoxCoder`.

        Args:
            priors: Anchors or proposals.
            codes: [..., 4]; class-wise codes are [..., K, 4] with priors [..., 1, 4].
            sizes: (h, w) of the images; [B, 2] means one per image of codes [B, N, 4].

        Raises:
            ValueError: The last dimension of ``codes`` is not 4.
        """
        check_last_is_four("codes", codes)
        statistics = zip(codes.unbind(-1), self.target_means, self.target_stds, strict=True)
        deltas = torch.stack([code * std + mean for code, mean, std in statistics], dim=-1)
        prior_center, prior_size = center_and_size(priors.boxes)
        center = prior_center + deltas[..., :2] * (prior_size + 1)
        ratio = deltas[..., 2:].clamp(-self._max_log_ratio, self._max_log_ratio).exp()
        half = (prior_size + 1) * ratio * 0.5 - (0.5 if self.exact_decode else 0.0)
        boxes = torch.cat((center - half, center + half), dim=-1)
        return geometry.clip(boxes, sizes - 1) if self.clip_border and sizes is not None else boxes
