"""Non-local blocks."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from detcore.component import wired
from detcore.interfaces import Block
from detcore.layers import NormName
from detcore_blocks.parts import Conv, reduced

Mode = Literal["embedded_gaussian", "gaussian", "dot_product", "concatenation"]


class NonLocal2d(Block):
    """Adds to each cell a sum of the features of all cells, weighted by how much the two have to do with each other.

    With ``zeros_init`` it begins as the identity.

    Source: Wang et al., Non-local Neural Networks (arXiv:1711.07971). Memory grows with the square of the number
    of cells; ``sub_sample`` takes a quarter of it.

    Shapes: [B, C, H, W] to the same.

    Args:
        in_channels: C; supplied by the owner.
        reduction: C by the channels in which cells are compared.
        mode: How: by the softmax of the dot product of embeddings ("embedded_gaussian") or of the features
            themselves ("gaussian"), by the dot product of embeddings ("dot_product"), or by a linear map of both
            with a ReLU ("concatenation"); the latter two divided by the number of cells.
        use_scale: Whether dot products of the embedded Gaussian are divided by the root of the number of channels.
        sub_sample: Whether the cells that are looked at are 2x2 maxima.
        norm: Normalisation at the end, or None.
        num_groups: Groups of a "GN".
        zeros_init: Whether the block begins as the identity.

    Raises:
        ValueError: ``num_groups`` does not divide C.
    """

    def __init__(
        self,
        *,
        in_channels: Annotated[int, Field(ge=1)] = wired(),
        reduction: Annotated[int, Field(ge=1)] = 2,
        mode: Mode = "embedded_gaussian",
        use_scale: bool = True,
        sub_sample: bool = False,
        norm: NormName | None = None,
        num_groups: Annotated[int, Field(ge=1)] = 32,
        zeros_init: bool = True,
    ) -> None:
        super().__init__()
        self.mode, self.use_scale, self.out_channels = mode, use_scale, in_channels
        inner = reduced(in_channels, 1 / reduction, f"reduction={reduction}")
        self.g: nn.Module = Conv(in_channels, inner)
        self.theta = self.concat_project = None
        self.phi: nn.Module | None = None
        if mode == "gaussian":
            self.phi = _Halve() if sub_sample else None
        else:
            self.theta, phi = Conv(in_channels, inner), Conv(in_channels, inner)
            self.phi = nn.Sequential(phi, _Halve()) if sub_sample else phi
        if sub_sample:
            self.g = nn.Sequential(self.g, _Halve())
        if mode == "concatenation":
            self.concat_project = Conv(2 * inner, 1, bias=False)
        self.conv_out = Conv(inner, in_channels, norm=norm, num_groups=num_groups)
        if zeros_init:
            last = self.conv_out.bn if self.conv_out.bn is not None else self.conv_out.conv
            for parameter in last.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """The features with what all cells tell."""
        seen = self.g(x).flatten(2).transpose(1, 2)  # [B, S, D]
        found = torch.matmul(self.affinity(x), seen).transpose(1, 2)  # [B, D, HW]
        return x + self.conv_out(found.reshape(*found.shape[:2], *x.shape[-2:]))  # type: ignore[no-any-return]

    def affinity(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B L S"]:
        """How much each of the L = HW cells looks at each of the S cells that there are to see."""
        asking = (x if self.theta is None else self.theta(x)).flatten(2).transpose(1, 2)  # [B, L, D]
        asked = (x if self.phi is None else self.phi(x)).flatten(2)  # [B, D, S]
        if self.concat_project is not None:
            # the map of both, one after the other, is the sum of two maps: no [B, 2D, L, S] is needed
            first, second = self.concat_project.conv.weight.flatten(1).chunk(2, dim=1)  # [1, D] each
            pairs = torch.matmul(asking, first.T) + torch.matmul(second, asked)
            return pairs.relu() / asked.shape[-1]
        pairs = torch.matmul(asking, asked)
        if self.mode == "dot_product":
            return pairs / asked.shape[-1]
        if self.mode == "embedded_gaussian" and self.use_scale:
            pairs = pairs / asking.shape[-1] ** 0.5
        return pairs.softmax(-1)


class _Halve(nn.Module):
    """Maxima of 2x2 cells; where there is but one row or column, of what there is."""

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        """The smaller feature map; a last odd row or column is left out."""
        return F.max_pool2d(x, [min(2, side) for side in x.shape[-2:]])
