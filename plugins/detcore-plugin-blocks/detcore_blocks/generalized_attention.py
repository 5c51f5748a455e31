"""Generalized attention."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from detcore.component import wired
from detcore.interfaces import Block

_WAVE_LENGTH = 1000.0


class GeneralizedAttention(Block):
    """Attention between cells as a sum of four terms, any of which can be switched off.

    The terms compare the content of the cell that looks and of the cell that is looked at (E1), the content of the
    first with their relative position (E2), the content of the second alone (E3), the relative position alone
    (E4). ``gamma`` is zero at first, so that the block begins as the identity.

    Source: Zhu et al., An Empirical Study of Spatial Attention Mechanisms in Deep Networks (arXiv:1904.05873).

    Shapes: [B, C, H, W] to the same; attention is [B, heads, L, S] for L cells that look at S cells.

    Args:
        in_channels: C; supplied by the owner.
        spatial_range: How far a cell looks along each axis, in cells: from so many before it to one more behind
            it, as in the reference; everywhere where -1.
        num_heads: Number of attentions side by side.
        position_embedding_dim: Length of the code of a relative position; C where -1.
        position_magnitude: Factor on relative positions.
        kv_stride: Of every so many rows and columns, one is looked at.
        q_stride: Of every so many rows and columns, one looks; the others are interpolated.
        attention_type: Four digits, "1" for each of E1 to E4 that counts.
        transposed_query: Whether E2, where E4 is off, takes the row code of a cell together with the content of the
            cell at transposed coordinates, as the reference does, on square feature maps only.

    Raises:
        ValueError: ``num_heads`` does not divide C, no term counts, the position code is no multiple of 4, or
            ``transposed_query`` is asked for where it means nothing.
    """

    appr_bias: nn.Parameter | None
    geom_bias: nn.Parameter | None

    def __init__(
        self,
        *,
        in_channels: Annotated[int, Field(ge=1)] = wired(),
        spatial_range: Annotated[int, Field(ge=-1)] = -1,
        num_heads: Annotated[int, Field(ge=1)] = 9,
        position_embedding_dim: Annotated[int, Field(ge=-1)] = -1,
        position_magnitude: float = 1.0,
        kv_stride: Annotated[int, Field(ge=1)] = 2,
        q_stride: Annotated[int, Field(ge=1)] = 1,
        attention_type: Annotated[str, Field(pattern="^[01]{4}$")] = "1111",
        transposed_query: bool = False,
    ) -> None:
        super().__init__()
        self.out_channels, self.num_heads = in_channels, num_heads
        self.spatial_range, self.position_magnitude = spatial_range, position_magnitude
        self.kv_stride, self.q_stride, self.transposed_query = kv_stride, q_stride, transposed_query
        self.pairs, self.placed, self.keys, self.places = (digit == "1" for digit in attention_type)
        self.code_size = position_embedding_dim if position_embedding_dim > 0 else in_channels
        self._check(in_channels, attention_type)
        depth = in_channels // num_heads
        self.query_conv = _projection(in_channels) if self.pairs or self.placed else None
        self.key_conv = _projection(in_channels) if self.pairs or self.keys else None
        self.value_conv = _projection(in_channels)
        self.appr_geom_fc_x = self.appr_geom_fc_y = None
        if self.placed or self.places:
            self.appr_geom_fc_x = nn.Linear(self.code_size // 2, in_channels, bias=False)
            self.appr_geom_fc_y = nn.Linear(self.code_size // 2, in_channels, bias=False)
        bound = 1 / math.sqrt(2 * depth)
        for name, wanted in (("appr_bias", self.keys), ("geom_bias", self.places)):
            bias = nn.Parameter(torch.empty(in_channels).uniform_(-bound, bound)) if wanted else None
            self.register_parameter(name, bias)
        self.proj_conv = nn.Conv2d(in_channels, in_channels, 1)
        nn.init.kaiming_normal_(self.proj_conv.weight, nonlinearity="relu")
        self.gamma = nn.Parameter(torch.zeros(1))

    def _check(self, in_channels: int, attention_type: str) -> None:
        if in_channels % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} does not divide the {in_channels} channels")
        if "1" not in attention_type:
            raise ValueError("attention_type='0000' switches every term off; leave the block out instead")
        if (self.placed or self.places) and self.code_size % 4:
            raise ValueError(
                f"position_embedding_dim={self.code_size} should be a multiple of 4: sines and cosines of x and y"
            )
        if self.transposed_query and not (self.placed and not self.places):
            raise ValueError("transposed_query=True is for attention_type='.1.0' only; leave it out")

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """The features with what all cells tell."""
        looking = x[..., :: self.q_stride, :: self.q_stride]
        seen = x[..., :: self.kv_stride, :: self.kv_stride]
        size, seen_size = looking.shape[-2:], seen.shape[-2:]
        energy = self._energy(looking, seen)  # [B, heads, h, w, hs, ws], or of size 1 along h and w
        if self.spatial_range >= 0:
            far = self._out_of_range(size, seen_size, x.device)
            energy = energy.expand(-1, -1, *size, -1, -1).masked_fill(far, -torch.inf)
        attention = energy.flatten(4).flatten(2, 3).softmax(-1)  # [B, heads, L, S]
        values = self._heads(self.value_conv(seen)).flatten(3)  # [B, heads, d, S]
        found = torch.matmul(values, attention.transpose(2, 3)).flatten(1, 2)  # [B, C, L]
        out: Tensor = self.proj_conv(
            found.reshape(*found.shape[:2], *(size if found.shape[-1] > 1 else (1, 1)))
        )
        if self.q_stride > 1 and out.shape[-2:] != x.shape[-2:] and found.shape[-1] > 1:
            out = F.interpolate(out, x.shape[-2:], mode="bilinear", align_corners=False)
        return self.gamma * out + x

    def _energy(self, looking: Tensor, seen: Tensor) -> Tensor:
        """The sum of the terms, before the softmax."""
        query = None if self.query_conv is None else self._heads(self.query_conv(looking))
        terms = []
        if self.key_conv is not None:
            keys = self._heads(self.key_conv(seen))  # [B, heads, d, hs, ws]
            asking = _sum(query if self.pairs else None, self._bias(self.appr_bias))
            terms.append(torch.einsum("bndhw,bndyx->bnhwyx", asking, keys) if self.pairs else
                         torch.einsum("ndhw,bndyx->bnhwyx", asking[0], keys))  # fmt: skip
        if self.placed or self.places:
            terms.append(self._positional(query if self.placed else None, looking, seen))
        return terms[0] if len(terms) == 1 else terms[0] + terms[1]

    def _positional(self, query: Tensor | None, looking: Tensor, seen: Tensor) -> Tensor:
        """E2 and E4: along x plus along y."""
        (h, w), (hs, ws) = looking.shape[-2:], seen.shape[-2:]
        along_x = self._codes(self.appr_geom_fc_x, w, ws, looking)  # [heads, d, w, ws]
        along_y = self._codes(self.appr_geom_fc_y, h, hs, looking)
        asking = _sum(query, self._bias(self.geom_bias))  # [B or 1, heads, d, h or 1, w or 1]
        for_y = asking.transpose(3, 4) if self.transposed_query else asking
        if self.places and query is None:  # the same wherever the cell is
            energy_x = torch.einsum("bnd,ndwx->bnwx", asking[..., 0, 0], along_x)[:, :, None, :, None, :]
            energy_y = torch.einsum("bnd,ndhy->bnhy", asking[..., 0, 0], along_y)[:, :, :, None, :, None]
        else:
            energy_x = torch.einsum("bndhw,ndwx->bnhwx", asking, along_x)[..., None, :]
            energy_y = torch.einsum("bndhw,ndhy->bnhwy", for_y, along_y)[..., None]
        return energy_x + energy_y

    def _codes(self, linear: nn.Linear | None, count: int, seen: int, like: Tensor) -> Tensor:
        """Of the positions of ``seen`` cells relative to ``count`` cells along one axis: [heads, d, count, seen]."""
        at = torch.arange(count, device=like.device)[:, None] * self.q_stride
        offset = (at - torch.arange(seen, device=like.device) * self.kv_stride) * self.position_magnitude
        steps = torch.arange(self.code_size // 4, device=like.device)
        angle = offset[..., None] / _WAVE_LENGTH ** (4 / self.code_size * steps)
        codes = torch.cat((angle.sin(), angle.cos()), dim=-1).to(like.dtype)
        if linear is None:  # pragma: no cover - there is one wherever positions count
            raise RuntimeError("positions have no weights")
        heads: Tensor = linear(codes).reshape(count, seen, self.num_heads, -1)
        return heads.permute(2, 3, 0, 1) / math.sqrt(2)

    def _heads(self, x: Tensor) -> Tensor:
        """[B, C, h, w] as [B, heads, d, h, w]."""
        return x.reshape(len(x), self.num_heads, x.shape[1] // self.num_heads, *x.shape[2:])

    def _bias(self, bias: Tensor | None) -> Tensor | None:
        """[C] as [1, heads, d, 1, 1]."""
        return None if bias is None else bias.reshape(1, self.num_heads, -1, 1, 1)

    def _out_of_range(
        self, size: torch.Size, seen: torch.Size, device: torch.device
    ) -> Bool[Tensor, "h w hs ws"]:
        """Which cells are not looked at."""
        near = []
        for count, other in zip(size, seen, strict=True):
            at = torch.arange(count, device=device)[:, None]
            there = torch.arange(other, device=device)
            first = torch.div(at - self.spatial_range, self.kv_stride, rounding_mode="floor")
            last = torch.div(at + self.spatial_range + 1, self.kv_stride, rounding_mode="floor")
            near.append((there >= first) & (there <= last))
        return ~(near[0][:, None, :, None] & near[1][None, :, None, :])


def _sum(query: Tensor | None, bias: Tensor | None) -> Tensor:
    """Of those that there are."""
    if query is None or bias is None:
        found = query if bias is None else bias
        if found is None:  # pragma: no cover - the owner asks for one at least
            raise RuntimeError("there is neither a query nor a bias")
        return found
    return query + bias


def _projection(channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, channels, 1, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv
