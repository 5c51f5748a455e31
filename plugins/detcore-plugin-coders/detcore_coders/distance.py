"""Boxes as distances from a point to the four sides."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from detcore import boxes as geometry
from detcore.interfaces import BBoxCoder
from detcore.structures import Encoded, Priors
from detcore_coders.geometry import check_last_is_four


class DistancePointBBoxCoder(BBoxCoder):
    """Distances in pixels from the prior's centre to the sides: (left, top, right, bottom).

    From "FCOS: Fully Convolutional One-Stage Object Detection" (arXiv 1904.01355). A side on the other side
    of the point has a negative distance. A head that regresses in units of the stride multiplies by
    ``priors.strides``.

    Args:
        clip_border: Whether ``decode`` cuts boxes off at the image.
        max_dis: Encoded distances are clamped to [0, max_dis - eps], as discrete distributions over distances
            need it; not clamped where None.
        eps: What stays between the largest encoded distance and ``max_dis``, in pixels; unused without
            ``max_dis``.

    Raises:
        ConfigError: ``eps`` is not below ``max_dis``.
    """

    def __init__(
        self,
        *,
        clip_border: bool = True,
        max_dis: Annotated[float, Field(gt=0)] | None = None,
        eps: Annotated[float, Field(ge=0)] = 0.1,
    ) -> None:
        if max_dis is not None and eps >= max_dis:
            raise ValueError(
                f"eps={eps} should be less than max_dis={max_dis}, else no distance is left to encode"
            )
        self.clip_border = clip_border
        self.max_dis = max_dis
        self.eps = eps

    def encode(self, priors: Priors, boxes: Float[Tensor, "*S 4"]) -> Encoded:
        """The distances [..., 4] from the priors' centres to boxes [..., 4]; leading dimensions broadcast."""
        check_last_is_four("boxes", boxes)
        points = priors.centers
        distances = torch.cat((points - boxes[..., :2], boxes[..., 2:] - points), dim=-1)
        if self.max_dis is not None:
            distances = distances.clamp(0, self.max_dis - self.eps)
        return Encoded(distances)

    def decode(
        self, priors: Priors, codes: Float[Tensor, "*S 4"], sizes: Int[Tensor, "*B 2"] | None = None
    ) -> Float[Tensor, "*S 4"]:
        """The boxes that distances mean; see :class:`~detcore.interfaces.BBoxCoder`.

        Args:
            priors: Points, or boxes whose centres count.
            codes: [..., 4], in pixels.
            sizes: (h, w) to clip to; [B, 2] means one per image of codes [B, N, 4].

        Raises:
            ValueError: The last dimension of ``codes`` is not 4.
        """
        check_last_is_four("codes", codes)
        points = priors.centers
        boxes = torch.cat((points - codes[..., :2], points + codes[..., 2:]), dim=-1)
        return geometry.clip(boxes, sizes) if self.clip_border and sizes is not None else boxes
