"""The interface of blocks: small networks that are attached inside of others."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from detcore.component import Component


class Block(Component, nn.Module):
    """A feature map to another one of the same size: attention, context, deformable convolution, dropout.

    A block declares ``in_channels: int = wired()``. One that can stand in for a convolution declares
    ``out_channels: int | None = wired(None)``, ``stride: int = wired(1)``, ``dilation: int = wired(1)`` and
    ``groups: int = wired(1)`` too, those that it has; owners attach a block that does not only where nothing
    else is asked for.

    Invariants: the result has :attr:`out_channels` channels, and at stride 1 the size of the input, for inputs
    of any size; in evaluation mode a feature map's result does not depend on the others in the batch.
    """

    kind: ClassVar[str] = "blocks"

    #: Channels of the result, known once constructed.
    out_channels: int
    #: Cells of the input for each cell of the result.
    stride: int = 1

    @abstractmethod
    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """The changed feature map."""
