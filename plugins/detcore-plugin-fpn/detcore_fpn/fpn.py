"""The feature pyramid network."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from detcore.component import wired
from detcore.interfaces import Neck
from detcore.layers import ActivationName, ConvNormAct, NormName
from detcore.structures import FeatureSpec

PositiveInt = Annotated[int, Field(ge=1)]
ExtraConvs = Literal["on_input", "on_lateral", "on_output"]


class FPN(Neck):
    """Feature pyramid network (Lin et al., arXiv 1612.03144), and extra levels (RetinaNet, arXiv 1708.02002).

    The levels from ``start_level`` to ``end_level`` are brought to the same channels (laterals), added from
    the coarsest down to the finest, and smoothed. Each further level halves the resolution of the one before.

    Args:
        in_features: Channels and strides of the input levels; supplied by the owner.
        out_channels: Channels of every output level.
        num_outs: Number of output levels.
        start_level: First input level that is used.
        end_level: Last input level that is used; -1 for the last there is.
        add_extra_convs: How levels beyond ``end_level`` are made: False by subsampling the output before,
            else by strided convolutions, of which the first sees the last used input ("on_input", or True),
            its lateral ("on_lateral"), or its output ("on_output").
        relu_before_extra_convs: Whether a ReLU comes before the extra convolutions, the first one excepted.
        no_norm_on_lateral: Whether the laterals do without the normalisation.
        norm: Normalisation after the convolutions, or None.
        num_groups: Groups of a "GN".
        activation: Activation after the convolutions, or None.
        upsample_mode: Interpolation from a level to the next finer one.
        align_corners: Whether "bilinear" takes the corners' centres, rather than their edges, as fixed.

    Raises:
        ValueError: The levels do not fit each other, or a parameter is set without the one that it modifies.
    """

    #: (regular expression, replacement) from MMDetection's weight names to ours.
    reference_names: ClassVar[tuple[tuple[str, str], ...]] = ((r"\.(bn|gn)\.", ".norm."),)

    def __init__(
        self,
        *,
        in_features: tuple[FeatureSpec, ...] = wired(),
        out_channels: PositiveInt = 256,
        num_outs: PositiveInt,
        start_level: Annotated[int, Field(ge=0)] = 0,
        end_level: Annotated[int, Field(ge=-1)] = -1,
        add_extra_convs: bool | ExtraConvs = False,
        relu_before_extra_convs: bool = False,
        no_norm_on_lateral: bool = False,
        norm: NormName | None = None,
        num_groups: PositiveInt = 32,
        activation: ActivationName | None = None,
        upsample_mode: Literal["nearest", "bilinear"] = "nearest",
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        end = _end_of(len(in_features), start_level, end_level, num_outs)
        if relu_before_extra_convs and not add_extra_convs:
            raise ValueError(
                "relu_before_extra_convs=True needs add_extra_convs: there is no convolution to precede"
            )
        if no_norm_on_lateral and norm is None:
            raise ValueError("no_norm_on_lateral=True needs norm: there is no normalisation to leave out")
        if align_corners and upsample_mode != "bilinear":
            raise ValueError(f"align_corners=True needs upsample_mode='bilinear', got {upsample_mode!r}")

        used = in_features[start_level:end]
        self.num_inputs, self.start_level, self.end = len(in_features), start_level, end
        self.source: ExtraConvs | None = "on_input" if add_extra_convs is True else add_extra_convs or None
        self.relu_before_extra_convs = relu_before_extra_convs
        self.upsample_mode, self.align_corners = upsample_mode, align_corners
        lateral_norm = None if no_norm_on_lateral else norm

        self.lateral_convs = nn.ModuleList(
            ConvNormAct(
                level.channels,
                out_channels,
                1,
                norm=lateral_norm,
                num_groups=num_groups,
                activation=activation,
            )
            for level in used
        )
        self.fpn_convs = nn.ModuleList(
            ConvNormAct(out_channels, out_channels, norm=norm, num_groups=num_groups, activation=activation)
            for _ in used
        )
        self.num_extra = num_outs - len(used)
        for i in range(self.num_extra if self.source else 0):
            channels = used[-1].channels if i == 0 and self.source == "on_input" else out_channels
            self.fpn_convs.append(
                ConvNormAct(
                    channels, out_channels, stride=2, norm=norm, num_groups=num_groups, activation=activation
                )
            )
        extra = (used[-1].stride * 2 ** (i + 1) for i in range(self.num_extra))
        self.out_features = tuple(
            FeatureSpec(out_channels, s) for s in (*(level.stride for level in used), *extra)
        )
        self._initialise()

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The pyramid.

        Args:
            features: One map [B, C_i, H_i, W_i] per level of ``in_features``.

        Returns:
            One map [B, out_channels, h_i, w_i] per level of ``out_features``.

        Raises:
            ValueError: There are fewer or more levels than ``in_features`` says.
        """
        if len(features) != self.num_inputs:
            raise ValueError(f"FPN was built for {self.num_inputs} levels of features, got {len(features)}")
        used = features[self.start_level : self.end]
        laterals = [conv(level) for conv, level in zip(self.lateral_convs, used, strict=True)]
        for i in range(len(laterals) - 1, 0, -1):
            laterals[i - 1] = laterals[i - 1] + self._upsample(laterals[i], laterals[i - 1].shape[-2:])
        convs = self.fpn_convs[: len(laterals)]  # those of the extra levels come after them
        outputs = [conv(level) for conv, level in zip(convs, laterals, strict=True)]
        self._append_extra(outputs, used[-1], laterals[-1])
        return tuple(outputs)

    def _upsample(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        align_corners = self.align_corners if self.upsample_mode == "bilinear" else None
        return F.interpolate(x, size, mode=self.upsample_mode, align_corners=align_corners)

    def _append_extra(self, outputs: list[Tensor], last_input: Tensor, last_lateral: Tensor) -> None:
        """Adds the levels coarser than every used input."""
        if self.source is None:
            for _ in range(self.num_extra):
                outputs.append(F.max_pool2d(outputs[-1], 1, stride=2))  # every other cell
            return
        x = {"on_input": last_input, "on_lateral": last_lateral, "on_output": outputs[-1]}[self.source]
        for i, conv in enumerate(self.fpn_convs[len(outputs) :]):
            x = conv(F.relu(x) if self.relu_before_extra_convs and i else x)
            outputs.append(x)

    def _initialise(self) -> None:
        """Random weights after Glorot and Bengio, uniform; no biases."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def _end_of(num_inputs: int, start_level: int, end_level: int, num_outs: int) -> int:
    """One past the last used input level."""
    levels = f"the {num_inputs} levels of in_features"
    if start_level >= num_inputs:
        raise ValueError(f"start_level={start_level} is beyond {levels}, which count from 0")
    if end_level >= num_inputs:
        raise ValueError(f"end_level={end_level} is beyond {levels}, which count from 0; -1 means the last")
    end = num_inputs if end_level == -1 else end_level + 1
    if end <= start_level:
        raise ValueError(f"end_level={end_level} is before start_level={start_level}: no level would be used")
    if num_outs < end - start_level:
        raise ValueError(
            f"num_outs={num_outs} is fewer than the {end - start_level} levels from "
            f"start_level={start_level} to level {end - 1}; raise num_outs, or use fewer levels by "
            "start_level and end_level"
        )
    return end
