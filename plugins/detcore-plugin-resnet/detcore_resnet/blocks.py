"""Residual blocks, and the stages that they are stacked to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from detcore.layers import NormName, make_norm
from detcore_resnet.he_conv import he_conv
from detcore_resnet.placement import Attached, BlockPlacement, attached_to, through

Style = Literal["pytorch", "caffe"]


@dataclass(frozen=True)
class BlockOptions:
    """What the blocks of one network have in common.

    Args:
        style: Which convolution of a bottleneck has the stride: the 3x3 ("pytorch") or first 1x1 ("caffe").
        avg_down: Whether shortcuts are shrunk by average pooling rather than by a strided 1x1 convolution.
        norm: The normalisation after every convolution.
        num_groups: Groups of a "GN".
        norm_eps: Added to the variance in the normalisation.
    """

    style: Style = "pytorch"
    avg_down: bool = False
    norm: NormName = "BN"
    num_groups: int = 32
    norm_eps: float = 1e-5

    def make_norm(self, channels: int) -> nn.Module:
        """A normalisation layer."""
        return make_norm(self.norm, channels, self.num_groups, self.norm_eps)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (ResNet-18 and -34, arXiv 1512.03385).

    Args:
        in_channels: Channels of the input.
        channels: Channels inside; the output has ``channels * expansion``.
        stride: Stride of the first convolution.
        dilation: Dilation of the first convolution.
        options: What all blocks share; ``style`` makes no difference here.
        attached: Blocks inside of it.
    """

    expansion: ClassVar[int] = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        dilation: int,
        options: BlockOptions,
        attached: Attached = Attached(),
    ) -> None:
        super().__init__()
        self.conv1 = he_conv(in_channels, channels, 3, stride, dilation, dilation)
        self.bn1 = options.make_norm(channels)
        self.conv2 = attached.conv2(channels, channels, stride=1, dilation=1)
        self.bn2 = options.make_norm(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = make_shortcut(in_channels, channels, stride, options)
        names = attached.attach(self, {"after_conv1": channels, "after_conv2": channels})
        self._after1, self._after2 = (names.get(f"after_conv{i}", ()) for i in (1, 2))

    @property
    def last_norm(self) -> nn.Module:
        """The normalisation just before the sum."""
        return self.bn2

    def foldable(self) -> tuple[tuple[str, str], ...]:
        """See :class:`~detcore.folding.Foldable`; attached blocks come after the normalisation."""
        return (("conv1", "bn1"), ("conv2", "bn2"))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """The feature map after the block."""
        out = through(self, self._after1, self.relu(self.bn1(self.conv1(x))))
        out = through(self, self._after2, self.bn2(self.conv2(out)))
        shortcut = x if self.downsample is None else self.downsample(x)
        # in place, unless a block may need its own output for the gradient
        out = out + shortcut if self._after2 else out.add_(shortcut)
        return self.relu(out)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1 ones, beside a shortcut (ResNet-50 and deeper, arXiv 1512.03385).

    Args:
        in_channels: Channels of the input.
        channels: Channels inside; the output has ``channels * expansion``.
        stride: Stride of the block; ``options.style`` says which convolution has it.
        dilation: Dilation of the 3x3 convolution.
        options: What all blocks share.
        attached: Blocks inside of it.
    """

    expansion: ClassVar[int] = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        dilation: int,
        options: BlockOptions,
        attached: Attached = Attached(),
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if options.style == "caffe" else (1, stride)
        out_channels = channels * self.expansion
        self.conv1 = he_conv(in_channels, channels, 1, first)
        self.bn1 = options.make_norm(channels)
        self.conv2 = attached.conv2(channels, channels, stride=second, dilation=dilation)
        self.bn2 = options.make_norm(channels)
        self.conv3 = he_conv(channels, out_channels, 1)
        self.bn3 = options.make_norm(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = make_shortcut(in_channels, out_channels, stride, options)
        after = {"after_conv1": channels, "after_conv2": channels, "after_conv3": out_channels}
        names = attached.attach(self, after)
        self._after1, self._after2, self._after3 = (names.get(position, ()) for position in after)

    @property
    def last_norm(self) -> nn.Module:
        """The normalisation just before the sum."""
        return self.bn3

    def foldable(self) -> tuple[tuple[str, str], ...]:
        """See :class:`~detcore.folding.Foldable`; attached blocks come after the normalisation."""
        return (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """The feature map after the block."""
        out = through(self, self._after1, self.relu(self.bn1(self.conv1(x))))
        out = through(self, self._after2, self.relu(self.bn2(self.conv2(out))))
        out = through(self, self._after3, self.bn3(self.conv3(out)))
        shortcut = x if self.downsample is None else self.downsample(x)
        # in place, unless a block may need its own output for the gradient
        out = out + shortcut if self._after3 else out.add_(shortcut)
        return self.relu(out)  # type: ignore[no-any-return]


def make_shortcut(
    in_channels: int, out_channels: int, stride: int, options: BlockOptions
) -> nn.Sequential | None:
    """The projection that lets a block's input be added to its output; None where it already can be.

    Args:
        in_channels: Channels of the block's input.
        out_channels: Channels of the block's output.
        stride: Stride of the block.
        options: What all blocks share.
    """
    if stride == 1 and in_channels == out_channels:
        return None
    norm = options.make_norm(out_channels)
    if not options.avg_down:
        return nn.Sequential(he_conv(in_channels, out_channels, 1, stride), norm)
    pool = (
        nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
    )
    return nn.Sequential(pool, he_conv(in_channels, out_channels, 1), norm)


def make_stage(
    block: Callable[..., BasicBlock | Bottleneck],
    in_channels: int,
    out_channels: int,
    channels: int,
    *,
    depth: int,
    stride: int,
    dilation: int,
    options: BlockOptions,
    index: int = 0,
    placements: tuple[BlockPlacement, ...] = (),
) -> nn.Sequential:
    """Blocks in a row, of which the first has the stride.

    Args:
        block: The class of the blocks.
        in_channels: Channels of the input.
        out_channels: Channels of every block's output.
        channels: Channels inside the blocks.
        depth: Number of blocks.
        stride: Stride of the stage.
        dilation: Dilation of all blocks.
        options: What all blocks share.
        index: Which stage it is (0-based), for ``placements``.
        placements: What is attached inside of the residual blocks of the whole network.
    """
    return nn.Sequential(
        *(
            block(
                out_channels if i else in_channels,
                channels,
                stride=1 if i else stride,
                dilation=dilation,
                options=options,
                attached=attached_to(placements, index, first=i == 0),
            )
            for i in range(depth)
        )
    )
