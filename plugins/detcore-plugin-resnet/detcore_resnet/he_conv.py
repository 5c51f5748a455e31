"""The convolution of ResNets."""

from __future__ import annotations

from torch import nn

from detcore.weights import without_initial_values


def he_conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> nn.Conv2d:
    """A convolution without bias that begins as in the paper on rectifiers (He et al., arXiv 1502.01852, section 2.2).

    The weights are normal, with the variance that keeps the size of gradients. They are drawn here, once, rather than
    by the network after torch has drawn its own.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the square kernel, in cells.
        stride: In cells.
        padding: Cells added at each side.
        dilation: Distance of neighbouring kernel elements, in cells.
    """
    with without_initial_values():
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
