"""Boxes by their centre within a cell and log ratios of their sizes."""

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


class YOLOBBoxCoder(BBoxCoder):
    """Place of the centre in its cell, 0 to 1, and log ratio of the sizes to the prior's: (x, y, w, h).

    From "YOLOv3: An Incremental Improvement" (arXiv 1804.02767). A cell is as large as the prior's stride and lies
    around the prior's centre, where 0.5 is. The first two codes are places, not logits: a head whose network gives
    logits passes them through a sigmoid before ``decode``.

    Args:
        eps: Encoded places are kept within [eps, 1 - eps], and ratios of sizes not below eps: an object belongs to
            the cell that its centre is in.
        clip_border: Whether ``decode`` cuts boxes off at the image. MMDetection leaves that to its head.
        empty_size: Pixels that a prior's side, or a stride, without length counts as in ``encode``. With 0 it gives
            infinities and NaN, as in MMDetection.
    """

    def __init__(
        self,
        *,
        eps: Annotated[float, Field(gt=0, lt=0.5)] = 1e-6,
        clip_border: bool = True,
        empty_size: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        self.eps, self.clip_border, self.empty_size = eps, clip_border, empty_size

    def encode(self, priors: Priors, boxes: Float[Tensor, "*S 4"]) -> Encoded:
        """The codes [..., 4] of boxes [..., 4]; leading dimensions broadcast."""
        check_last_is_four("boxes", boxes)
        prior_center, prior_size = center_and_size(priors.boxes)
        center, size = center_and_size(boxes)
        ratio = size / fill_empty(prior_size, self.empty_size)
        strides = fill_empty(priors.strides.to(prior_center.dtype), self.empty_size)
        place = (center - prior_center) / strides + 0.5
        codes = (place.clamp(self.eps, 1 - self.eps), ratio.clamp(min=self.eps).log())
        return Encoded(torch.cat(codes, dim=-1))

    def decode(
        self, priors: Priors, codes: Float[Tensor, "*S 4"], sizes: Int[Tensor, "*B 2"] | None = None
    ) -> Float[Tensor, "*S 4"]:
        """The boxes that codes mean; see :class:`~detcore.interfaces.BBoxCoder`.

        Args:
            priors: Anchors, with the strides of their levels.
            codes: [..., 4].
            sizes: (h, w) to clip to; [B, 2] means one per image of codes [B, N, 4].

        Raises:
            ValueError: The last dimension of ``codes`` is not 4.
        """
        check_last_is_four("codes", codes)
        prior_center, prior_size = center_and_size(priors.boxes)
        center = prior_center + (codes[..., :2] - 0.5) * priors.strides.to(prior_center.dtype)
        half = prior_size * 0.5 * codes[..., 2:].exp()
        boxes = torch.cat((center - half, center + half), dim=-1)
        return geometry.clip(boxes, sizes) if self.clip_border and sizes is not None else boxes
