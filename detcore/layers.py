"""Small building blocks that several plugins share: modules, not components, so no file can name them."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

NormName = Literal["BN", "SyncBN", "GN"]
ActivationName = Literal["ReLU"]


def make_norm(name: NormName, channels: int, num_groups: int = 32, eps: float = 1e-5) -> nn.Module:
    """A normalisation layer for feature maps.

    Args:
        name: "BN", "SyncBN" (statistics over all processes) or "GN".
        channels: Channels of the feature map.
        num_groups: Groups of "GN"; the others have none.
        eps: Added to the variance.

    Raises:
        ValueError: ``num_groups`` does not divide ``channels``.
    """
    if name == "GN":
        if channels % num_groups:
            raise ValueError(
                f"num_groups={num_groups} does not divide the {channels} channels that GN is to normalise; "
                "use a divisor of them"
            )
        return nn.GroupNorm(num_groups, channels, eps=eps)
    return (nn.SyncBatchNorm if name == "SyncBN" else nn.BatchNorm2d)(channels, eps=eps)


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module normalises by the statistics of the batch, and keeps running ones."""
    return isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm))


class ConvNormAct(nn.Module):
    """A convolution, then a normalisation, then an activation; the last two where asked for.

    The convolution has a bias exactly where no normalisation follows.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the square kernel, in cells; odd, so that the default padding keeps the size.
        stride: Stride of the convolution, in cells.
        padding: Cells added at each side; as many as keep the size at stride 1 where None.
        dilation: Distance of neighbouring kernel elements, in cells.
        groups: Groups of the convolution.
        norm: The normalisation, or None.
        num_groups: Groups of a "GN".
        activation: The activation, or None.

    Raises:
        ValueError: ``num_groups`` does not divide ``out_channels``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        norm: NormName | None = None,
        num_groups: int = 32,
        activation: ActivationName | None = "ReLU",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=dilation * (kernel_size // 2) if padding is None else padding,
            dilation=dilation,
            groups=groups,
            bias=norm is None,
        )
        self.norm = make_norm(norm, out_channels, num_groups) if norm else None
        # in place: neither a convolution nor a normalisation needs its output for the gradient
        self.act = nn.ReLU(inplace=True) if activation else None

    def foldable(self) -> tuple[tuple[str, str], ...]:
        """See :class:`~detcore.folding.Foldable`."""
        return (("conv", "norm"),)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """The transformed feature map."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.act is None else self.act(x)


def tower(
    in_channels: int, width: int, depth: int, norm: NormName | None = None, num_groups: int = 32
) -> nn.Sequential:
    """``depth`` 3x3 convolutions with ReLU that keep the size; without any, the input passes through.

    Args:
        in_channels: Channels of the input.
        width: Channels of every convolution.
        depth: Number of convolutions.
        norm: Normalisation after each convolution, or None.
        num_groups: Groups of a "GN".
    """
    channels = [in_channels] + [width] * depth
    return nn.Sequential(
        *(ConvNormAct(channels[i], width, 3, norm=norm, num_groups=num_groups) for i in range(depth))
    )


class Scale(nn.Module):
    """A learned factor, one for each level of a pyramid that shares its convolutions.

    Args:
        value: The factor of the untrained network.
    """

    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(value))

    def forward(self, x: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """``x`` times the factor."""
        return x * self.scale


def init_convs(head: nn.Module, classifier: nn.Conv2d, prior_prob: float) -> None:
    """Small random weights, no biases, and a classifier that predicts a rare object everywhere.

    Without the latter the many negatives give a huge loss at first (arXiv:1708.02002, section 4.1).

    Args:
        head: All its convolutions are set.
        classifier: The one that gives the logits.
        prior_prob: Probability of each class that the untrained classifier predicts.
    """
    for layer in head.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    if classifier.bias is not None:
        nn.init.constant_(classifier.bias, -math.log((1 - prior_prob) / prior_prob))
