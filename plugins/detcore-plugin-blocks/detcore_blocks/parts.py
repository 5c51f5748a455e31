"""What several blocks are made of; modules, not components."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from detcore.layers import NormName, make_norm

ActivationName = Literal["ReLU", "Sigmoid", "SiLU", "HardSigmoid"]


def make_activation(name: ActivationName) -> nn.Module:
    """An activation by its name; none of them works in place."""
    activations: dict[str, type[nn.Module]] = {
        "ReLU": nn.ReLU,
        "Sigmoid": nn.Sigmoid,
        "SiLU": nn.SiLU,
        "HardSigmoid": nn.Hardsigmoid,
    }
    return activations[name]()


class Conv(nn.Module):
    """A convolution that keeps the size, then a normalisation and an activation where asked for.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the square kernel, in cells; odd.
        dilation: Distance of neighbouring kernel elements, in cells.
        groups: Groups of the convolution.
        norm: The normalisation, or None.
        num_groups: Groups of a "GN".
        norm_eps: Added to the variance in the normalisation.
        activation: The activation, or None.
        bias: Whether the convolution has a bias; where no normalisation follows if None.

    Raises:
        ValueError: ``num_groups`` does not divide ``out_channels``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        dilation: int = 1,
        groups: int = 1,
        norm: NormName | None = None,
        num_groups: int = 32,
        norm_eps: float = 1e-5,
        activation: ActivationName | None = None,
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            padding=dilation * (kernel_size // 2),
            dilation=dilation,
            groups=groups,
            bias=norm is None if bias is None else bias,
        )
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)
        self.bn = make_norm(norm, out_channels, num_groups, norm_eps) if norm else None
        self.act = make_activation(activation) if activation else None

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
        """The transformed feature map."""
        x = self.conv(x)
        if self.bn is not None:
            x = self.bn(x)
        return x if self.act is None else self.act(x)


def reduced(in_channels: int, ratio: float, what: str) -> int:
    """``in_channels * ratio``, which has to be a channel at least.

    Args:
        in_channels: Channels of the input.
        ratio: Factor, at most 1.
        what: The parameter that it comes from, for the error.

    Raises:
        ValueError: No channel is left.
    """
    channels = int(in_channels * ratio)
    if channels < 1:
        raise ValueError(f"{what} leaves no channel of {in_channels} for the bottleneck; reduce less")
    return channels
