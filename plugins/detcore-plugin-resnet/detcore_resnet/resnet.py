"""ResNet backbones."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from detcore.interfaces import Backbone
from detcore.layers import NormName, is_batch_norm
from detcore.structures import FeatureSpec
from detcore.weights import load_weights
from detcore_resnet.blocks import BasicBlock, BlockOptions, Bottleneck, Style, make_stage
from detcore_resnet.he_conv import he_conv
from detcore_resnet.norms import freeze_norms, keep_statistics
from detcore_resnet.placement import (
    BlockPlacement,
    check_placements,
    without_pretrained_weights,
)

#: Block and number of blocks in each stage, by the network's depth.
DEPTHS: dict[int, tuple[type[BasicBlock | Bottleneck], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}
MAX_STAGES = 4
#: Pixels per cell of the stem's output.
_STEM_STRIDE = 4

PositiveInt = Annotated[int, Field(ge=1)]


class ResNet(Backbone):
    """Residual network (He et al., arXiv 1512.03385), with the options of "Bag of Tricks" (arXiv 1812.01187).

    ``deep_stem=True, avg_down=True`` is ResNet-D ("V1d"). Parameters are named as in torchvision, whatever
    the normalisation. Stage i (0-based) has stride ``4 * prod(strides[:i + 1])``.

    Args:
        depth: Number of weighted layers: 18, 34, 50, 101 or 152.
        in_channels: Channels of the images.
        base_channels: Channels inside the first stage's blocks, and of the stem.
        num_stages: Number of stages, counted from the stem.
        strides: Stride of each stage's first block.
        dilations: Dilation of each stage's 3x3 convolutions.
        out_indices: Which stages are given out, ascending, the last one among them.
        style: Which convolution of a bottleneck has the stride: the 3x3 ("pytorch", also called V1.5) or the
            first 1x1 ("caffe"). Basic blocks are the same in both.
        deep_stem: Three 3x3 convolutions in the stem rather than one 7x7.
        avg_down: Average pooling rather than a stride in the shortcuts.
        frozen_stages: The stem and this many stages keep their weights and statistics; -1 freezes nothing.
        norm: Normalisation.
        num_groups: Groups of a "GN".
        norm_eps: Added to the variance in the normalisation.
        norm_requires_grad: Whether scales and offsets of the normalisation are trained.
        norm_eval: Whether BN keeps its statistics in training too: right for small batches on pretrained
            weights, wrong from scratch.
        zero_init_residual: Whether each block begins as the identity (arXiv 1706.02677).
        blocks: What is attached inside of the residual blocks: attention, context, deformable convolutions; see
            :class:`BlockPlacement`. They keep their own initial values, with pretrained weights too.
        weights: Address of pretrained weights: ``torchvision://resnet50``,
            ``torchvision://ResNet50_Weights.IMAGENET1K_V2``, or a path.

    Raises:
        ValueError: The stages' parameters do not fit each other, or ``num_groups`` does not divide channels.
        CheckpointError: The weights cannot be read or do not fit.
    """

    #: (regular expression, replacement) from MMDetection's weight names to ours.
    reference_names: ClassVar[tuple[tuple[str, str], ...]] = ((r"(^|\.)gn(?=\d\.)", r"\1bn"),)

    def __init__(
        self,
        *,
        depth: Literal[18, 34, 50, 101, 152],
        in_channels: PositiveInt = 3,
        base_channels: PositiveInt = 64,
        num_stages: Annotated[int, Field(ge=1, le=MAX_STAGES)] = 4,
        strides: tuple[PositiveInt, ...] = (1, 2, 2, 2),
        dilations: tuple[PositiveInt, ...] = (1, 1, 1, 1),
        out_indices: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1, 2, 3),
        style: Style = "pytorch",
        deep_stem: bool = False,
        avg_down: bool = False,
        frozen_stages: Annotated[int, Field(ge=-1)] = -1,
        norm: NormName = "BN",
        num_groups: PositiveInt = 32,
        norm_eps: Annotated[float, Field(ge=0)] = 1e-5,
        norm_requires_grad: bool = True,
        norm_eval: bool = False,
        zero_init_residual: bool = True,
        blocks: tuple[BlockPlacement, ...] = (),
        weights: str | None = None,
    ) -> None:
        super().__init__()
        _check_stages(num_stages, strides, dilations, out_indices, frozen_stages)
        check_placements(blocks, num_stages)
        self.frozen_stages, self.norm_eval, self.out_indices = frozen_stages, norm_eval, out_indices
        self.num_stages = num_stages
        options = BlockOptions(style, avg_down, norm, num_groups, norm_eps)
        self._make_stem(in_channels, base_channels, deep_stem, options)
        self.out_features = self._make_stages(depth, base_channels, strides, dilations, options, blocks)
        if zero_init_residual:
            _begin_as_identity(self)
        if not norm_requires_grad:
            freeze_norms(self)
        self._warn_once = True
        self.register_load_state_dict_pre_hook(_note_weights)  # type: ignore[no-untyped-call]
        if weights is not None:
            load_weights(
                self,
                weights,
                renames=self.reference_names,
                skip=self._not_ours(),
                may_lack=without_pretrained_weights(self),
            )
        self.train()

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> tuple[Tensor, ...]:
        """The feature maps of the stages in ``out_indices``, first to last."""
        if self._warn_once and self.training and not torch.compiler.is_compiling():
            self._warn_of_random_constants()
        x = self.stem(pixels) if self.deep_stem else self.relu(self.bn1(self.conv1(pixels)))
        x = self.maxpool(x)
        outputs = []
        for index, stage in enumerate(self._stages()):
            x = stage(x)
            if index in self.out_indices:
                outputs.append(x)
        return tuple(outputs)

    def depth_layers(self) -> tuple[tuple[str, ...], ...]:
        """The stem, then each residual block; see :class:`~detcore.interfaces.Backbone`."""
        stem = ("stem",) if self.deep_stem else ("conv1", "bn1")
        blocks = (
            (f"layer{i + 1}.{block}",)
            for i, stage in enumerate(self._stages())
            for block, _ in stage.named_children()
        )
        return (stem, *blocks)

    def foldable(self) -> tuple[tuple[str, str], ...]:
        """See :class:`~detcore.folding.Foldable`."""
        return () if self.deep_stem else (("conv1", "bn1"),)

    def train(self, mode: bool = True) -> ResNet:
        """Sets the training mode, except for what is frozen."""
        super().train(mode)
        for module in self._frozen():
            module.eval().requires_grad_(False)
        if self.norm_eval:
            keep_statistics(self)
        return self

    # ------------------------------------------------------------------------------------------ construction

    def _make_stem(self, in_channels: int, channels: int, deep: bool, options: BlockOptions) -> None:
        self.deep_stem = deep
        if deep:
            if channels % 2:
                raise ValueError(
                    f"base_channels={channels} should be even with deep_stem=True, whose first half it is"
                )
            half = channels // 2
            self.stem = nn.Sequential(
                *_conv_norm_relu(in_channels, half, 2, options),
                *_conv_norm_relu(half, half, 1, options),
                *_conv_norm_relu(half, channels, 1, options),
            )
        else:
            self.conv1 = he_conv(in_channels, channels, 7, 2, 3)
            self.bn1 = options.make_norm(channels)
            self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)

    def _make_stages(
        self,
        depth: int,
        base_channels: int,
        strides: tuple[int, ...],
        dilations: tuple[int, ...],
        options: BlockOptions,
        placements: tuple[BlockPlacement, ...],
    ) -> tuple[FeatureSpec, ...]:
        block, lengths = DEPTHS[depth]
        in_channels, features = base_channels, []
        for i, (length, stride, dilation) in enumerate(zip(lengths, strides, dilations, strict=False)):
            channels = base_channels * 2**i
            out_channels = channels * block.expansion
            stage = make_stage(
                block,
                in_channels,
                out_channels,
                channels,
                depth=length,
                stride=stride,
                dilation=dilation,
                options=options,
                index=i,
                placements=placements,
            )
            self.add_module(f"layer{i + 1}", stage)
            features.append(FeatureSpec(out_channels, _STEM_STRIDE * math.prod(strides[: i + 1])))
            in_channels = out_channels
        return tuple(features[i] for i in self.out_indices)

    def _not_ours(self) -> tuple[str, ...]:
        """Beginnings of names in an ImageNet classifier's weights that have no place here."""
        return ("fc.", *(f"layer{i + 1}." for i in range(self.num_stages, MAX_STAGES)))

    # ----------------------------------------------------------------------------------------------- freezing

    def _stages(self) -> Iterator[nn.Module]:
        return (getattr(self, f"layer{i + 1}") for i in range(self.num_stages))

    def _frozen(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        stem = [self.stem] if self.deep_stem else [self.conv1, self.bn1]
        return [*stem, *itertools.islice(self._stages(), self.frozen_stages)]

    def _warn_of_random_constants(self) -> None:
        """Warns when training leaves random weights as they are."""
        self._warn_once = False
        statistics = self.norm_eval and any(is_batch_norm(layer) for layer in self.modules())
        constant = [f"frozen_stages={self.frozen_stages}"] * (self.frozen_stages >= 0)
        constant += ["norm_eval=True"] * statistics
        if constant:
            warnings.warn(
                f"ResNet is trained with {' and '.join(constant)}, but it holds no pretrained weights: "
                "random values stay as they are. Give `weights`, load a checkpoint first, or train all of it "
                "(frozen_stages=-1, norm_eval=False).",
                stacklevel=3,
            )


def _begin_as_identity(network: nn.Module) -> None:
    """Sets the norms before the sums of residual blocks so that each block begins as its shortcut."""
    for module in network.modules():
        if isinstance(module, (BasicBlock, Bottleneck)):
            nn.init.zeros_(module.last_norm.weight)  # type: ignore[arg-type]


def _conv_norm_relu(
    in_channels: int, out_channels: int, stride: int, options: BlockOptions
) -> tuple[nn.Module, ...]:
    conv = he_conv(in_channels, out_channels, 3, stride, 1)
    return conv, options.make_norm(out_channels), nn.ReLU(inplace=True)


def _note_weights(module: ResNet, weights: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Remembers that a state dict brought weights for this network."""
    if any(name.startswith(f"{prefix}layer") for name in weights):
        module._warn_once = False


def _check_stages(
    num_stages: int,
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    out_indices: tuple[int, ...],
    frozen_stages: int,
) -> None:
    for name, values in (("strides", strides), ("dilations", dilations)):
        if len(values) != num_stages:
            raise ValueError(
                f"{name}={values} should have one entry for each of the num_stages={num_stages} stages"
            )
    if not out_indices or list(out_indices) != sorted(set(out_indices)):
        raise ValueError(f"out_indices={out_indices} should be stages in ascending order, each once")
    if out_indices[-1] >= num_stages:
        raise ValueError(
            f"out_indices={out_indices} should be below num_stages={num_stages}; stages count from 0"
        )
    if out_indices[-1] < num_stages - 1:
        raise ValueError(
            f"out_indices={out_indices} leaves the last of num_stages={num_stages} stages without use; "
            f"set num_stages={out_indices[-1] + 1}, and as many strides and dilations"
        )
    if frozen_stages > num_stages:
        raise ValueError(f"frozen_stages={frozen_stages} should be at most num_stages={num_stages}")
