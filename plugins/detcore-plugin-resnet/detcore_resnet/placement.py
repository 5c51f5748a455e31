"""Blocks inside of residual blocks: where they go, and how they get there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NotRequired, cast

from pydantic import ConfigDict, Field
from torch import Tensor, nn
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from detcore.component import Part, Spec, make
from detcore.interfaces import Block
from detcore_resnet.he_conv import he_conv

Position = Literal["after_conv1", "after_conv2", "after_conv3", "conv2"]


class BlockPlacement(TypedDict):
    """A block, and where in a ResNet it goes.

    Args:
        block: The recipe; each place gets a block of its own.
        stages: In which stages (0-based); in all of them where omitted.
        position: After which convolution of each residual block, its normalisation and activation included
            (after the last one: before the sum with the shortcut); or "conv2", in place of the 3x3 convolution,
            of which it gets channels, stride and dilation. "after_conv3" where omitted, "after_conv2" in
            networks of two convolutions per block.
        skip_first: Whether the first residual block of each stage, which has the stride, goes without.
        name: What it is called among the weights of a residual block; made from its class where omitted
            (``context_block``). Blocks in one residual block need different names.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    block: Spec[Block]
    stages: NotRequired[tuple[Annotated[int, Field(ge=0)], ...]]
    position: NotRequired[Position]
    skip_first: NotRequired[bool]
    name: NotRequired[Annotated[str, Field(pattern=r"^[a-z]\w*$")]]


@dataclass(frozen=True)
class Attached:
    """The blocks of one residual block.

    Args:
        placements: Those that go there.
    """

    placements: tuple[BlockPlacement, ...] = ()

    def conv2(self, in_channels: int, out_channels: int, *, stride: int, dilation: int) -> nn.Module:
        """The 3x3 convolution, or what stands in its place.

        Raises:
            ValueError: Two blocks want the place, or the block has other channels or another stride.
        """
        specs = [placement["block"] for placement in self.placements if placement.get("position") == "conv2"]
        if not specs:
            return he_conv(in_channels, out_channels, 3, stride, dilation, dilation)
        if len(specs) > 1:
            raise ValueError(
                f"blocks: {len(specs)} of them stand in for conv2 of one stage; keep one of {specs}"
            )
        block: Block = make(
            cast("Part[Block]", specs[0]),
            in_channels=in_channels,
            out_channels=out_channels,
            stride=stride,
            dilation=dilation,
        )
        if isinstance(block, Block) and (block.out_channels, block.stride) != (out_channels, stride):
            raise ValueError(
                f"blocks: {specs[0].type.__name__} has {block.out_channels} channels and stride {block.stride}, "
                f"in place of a convolution with {out_channels} and {stride}; place it after one"
            )
        return block

    def attach(self, owner: nn.Module, channels: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
        """Makes the other blocks and registers them at ``owner``.

        Args:
            owner: The residual block.
            channels: Channels after each of its convolutions, by position, the last one last.

        Returns:
            Names of the modules by position.

        Raises:
            ValueError: There is no such position, a name is taken, or a block changes the feature map's shape.
        """
        names: dict[str, tuple[str, ...]] = {}
        *_, last = channels
        for placement in self.placements:
            position = placement.get("position", last)
            if position == "conv2":
                continue
            if position not in channels:
                raise ValueError(
                    f"blocks: position={position!r} should be one of {[*channels, 'conv2']} here"
                )
            spec = placement["block"]
            name = placement.get("name") or snake_case(spec.type.__name__)
            if hasattr(owner, name):
                raise ValueError(
                    f"blocks: the name {name!r} is taken; give that {spec.type.__name__} a `name`"
                )
            block: Block = make(cast("Part[Block]", spec), in_channels=channels[position])
            if isinstance(block, Block) and (block.out_channels, block.stride) != (channels[position], 1):
                raise ValueError(
                    f"blocks: {spec.type.__name__} makes {block.out_channels} channels at stride {block.stride} "
                    f"of {channels[position]} at 1; inside of a residual block the shape has to stay"
                )
            if isinstance(block, nn.Module):
                owner.add_module(name, block)
            names[position] = (*names.get(position, ()), name)
        return names


def through(owner: nn.Module, names: Sequence[str], x: Tensor) -> Tensor:
    """``x`` after the modules of that name."""
    for name in names:
        x = getattr(owner, name)(x)
    return x


def attached_to(placements: tuple[BlockPlacement, ...], stage: int, *, first: bool) -> Attached:
    """The blocks of one residual block.

    Args:
        placements: Of the whole network.
        stage: Its stage (0-based).
        first: Whether it is the first one there.
    """
    here = (p for p in placements if stage in p.get("stages", (stage,)))
    return Attached(tuple(p for p in here if not (first and p.get("skip_first", False))))


def check_placements(placements: tuple[BlockPlacement, ...], num_stages: int) -> None:
    """Checks that all stages exist.

    Raises:
        ValueError: One does not.
    """
    for index, placement in enumerate(placements):
        beyond = [stage for stage in placement.get("stages", ()) if stage >= num_stages]
        if beyond:
            raise ValueError(
                f"blocks.{index}.stages={placement['stages']} should be below num_stages={num_stages}; "
                "stages count from 0"
            )


def without_pretrained_weights(network: nn.Module) -> tuple[str, ...]:
    """Names of the weights of attached blocks that no plain network has; a convolution's own it has."""
    names = []
    for path, module in network.named_modules():
        if isinstance(module, Block):
            plain = {"weight"} if path.endswith(".conv2") else set()
            names += [f"{path}.{name}" for name in module.state_dict() if name not in plain]
    return tuple(names)


def snake_case(name: str) -> str:
    """``context_block`` of ``ContextBlock``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
