"""Boxes as they are."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detcore import boxes as geometry
from detcore.interfaces import BBoxCoder
from detcore.structures import Encoded, Priors
from detcore_coders.geometry import check_last_is_four


class PseudoBBoxCoder(BBoxCoder):
    """The corners (x1, y1, x2, y2) in pixels are the code; the prior is not looked at.

    For heads whose networks give boxes themselves.

    Args:
        clip_border: Whether ``decode`` cuts boxes off at the image.
    """

    def __init__(self, *, clip_border: bool = True) -> None:
        self.clip_border = clip_border

    def encode(self, priors: Priors, boxes: Float[Tensor, "*S 4"]) -> Encoded:
        """The boxes [..., 4]; leading dimensions broadcast against those of the priors."""
        check_last_is_four("boxes", boxes)
        return Encoded(_broadcast(boxes, priors))

    def decode(
        self, priors: Priors, codes: Float[Tensor, "*S 4"], sizes: Int[Tensor, "*B 2"] | None = None
    ) -> Float[Tensor, "*S 4"]:
        """The codes [..., 4]; see :class:`~detcore.interfaces.BBoxCoder`.

        Raises:
            ValueError: The last dimension of ``codes`` is not 4.
        """
        check_last_is_four("codes", codes)
        boxes = _broadcast(codes, priors)
        return geometry.clip(boxes, sizes) if self.clip_border and sizes is not None else boxes


def _broadcast(values: Tensor, priors: Priors) -> Tensor:
    shape = torch.broadcast_shapes(values.shape, priors.boxes.shape)  # type: ignore[no-untyped-call]
    return values.to(torch.promote_types(values.dtype, priors.boxes.dtype)).expand(shape)
