"""Small building blocks that several plugins share: modules, not components, so no file can name them."""

from __future__ import annotations

from typing import Literal

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

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """The transformed feature map."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.act is None else self.act(x)
