"""Dropout on feature maps."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from detcore.component import wired
from detcore.interfaces import Block


class Dropout(Block):
    """Sets random values to zero in training, and scales the others up; the identity in evaluation.

    Source: Srivastava et al., Dropout (JMLR 15, 2014); whole channels at once: Tompson et al. (arXiv:1411.4280).

    Shapes: [B, C, H, W] to the same.

    Args:
        in_channels: C; supplied by the owner.
        p: Probability of a value, or of a channel, to be dropped.
        channels: Whether a channel of an image is dropped as a whole.
    """

    def __init__(
        self,
        *,
        in_channels: Annotated[int, Field(ge=1)] = wired(),
        p: Annotated[float, Field(ge=0, lt=1)] = 0.5,
        channels: bool = False,
    ) -> None:
        super().__init__()
        self.out_channels, self.p, self.channels = in_channels, p, channels

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """The features, some of them dropped in training."""
        return (F.dropout2d if self.channels else F.dropout)(x, self.p, self.training)
