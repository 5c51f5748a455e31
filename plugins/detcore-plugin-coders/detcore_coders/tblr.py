"""Boxes as distances from a prior's centre to the four sides, relative to the prior's size."""

from __future__ import annotations

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


class TBLRBBoxCoder(BBoxCoder):
    """Distances from the prior's centre to the sides, relative to its size: (top, bottom, left, right).

    From "Feature Selective Anchor-Free Module for Single-Shot Object Detection" (arXiv 1903.00621).

    Args:
        normalizer: Divisor of the relative distances; four of them in the order top, bottom, left, right.
        clip_border: Whether ``decode`` cuts boxes off at the image.
        empty_size: Pixels that a prior's side without length counts as in ``encode``. With 0 such a prior
            gives infinities and NaN, as in MMDetection.
    """

    def __init__(
        self,
        *,
        normalizer: _Positive | tuple[_Positive, _Positive, _Positive, _Positive] = 4.0,
        clip_border: bool = True,
        empty_size: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        self.normalizer = normalizer
        self.clip_border = clip_border
        self.empty_size = empty_size
        self._normalizers = normalizer if isinstance(normalizer, tuple) else (normalizer,) * 4

    def encode(self, priors: Priors, boxes: Float[Tensor, "*S 4"]) -> Encoded:
        """The codes [..., 4] of boxes [..., 4] relative to priors [..., 4]; leading dimensions broadcast."""
        check_last_is_four("boxes", boxes)
        center, size = center_and_size(priors.boxes)
        width, height = fill_empty(size, self.empty_size).unbind(-1)
        left, top = (center - boxes[..., :2]).unbind(-1)
        right, bottom = (boxes[..., 2:] - center).unbind(-1)
        relative = (top / height, bottom / height, left / width, right / width)
        codes = [distance / norm for distance, norm in zip(relative, self._normalizers, strict=True)]
        return Encoded(torch.stack(codes, dim=-1))

    def decode(
        self, priors: Priors, codes: Float[Tensor, "*S 4"], sizes: Int[Tensor, "*B 2"] | None = None
    ) -> Float[Tensor, "*S 4"]:
        """The boxes that codes mean; see :class:`~detcore.interfaces.BBoxCoder`.

        Args:
            priors: Anchors.
            codes: [..., 4].
            sizes: (h, w) to clip to; [B, 2] means one per image of codes [B, N, 4].

        Raises:
            ValueError: The last dimension of ``codes`` is not 4.
        """
        check_last_is_four("codes", codes)
        center, size = center_and_size(priors.boxes)
        (x, y), (width, height) = center.unbind(-1), size.unbind(-1)
        relative = [code * norm for code, norm in zip(codes.unbind(-1), self._normalizers, strict=True)]
        top, bottom, left, right = relative
        sides = (x - left * width, y - top * height, x + right * width, y + bottom * height)
        boxes = torch.stack(sides, dim=-1)
        return geometry.clip(boxes, sizes) if self.clip_border and sizes is not None else boxes
