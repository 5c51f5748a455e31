"""How an RoI head is put together from its parts: what each one is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from detcore.component import Component, Part, Spec, make
from detcore.interfaces import BBoxHead, MaskHead, RoIExtractor, SharedHead
from detcore.structures import FeatureSpec

Head = TypeVar("Head", BBoxHead, MaskHead)
T = TypeVar("T", bound=Component)


def make_shared(
    part: Part[SharedHead] | None, extractor: RoIExtractor, other: RoIExtractor | None
) -> SharedHead | None:
    """The shared network, for what both extractors give.

    Raises:
        ValueError: They give features of different shapes.
    """
    if part is None:
        return None
    shapes = [(e.out_channels, *e.output_size) for e in (extractor, other) if e is not None]
    if len(set(shapes)) > 1:
        raise ValueError(
            f"shared_head sees the features of both extractors, which differ in (channels, h, w): {shapes}; "
            "give them the same output_size, or leave out mask_roi_extractor"
        )
    return make(part, in_channels=extractor.out_channels, roi_feat_size=extractor.output_size)


def make_head(part: Head | Spec[Head], source: RoIExtractor | SharedHead, num_classes: int) -> Head:
    """A box or mask head, for what it is to see."""
    return make(
        part,
        in_channels=source.out_channels,
        roi_feat_size=source.output_size,
        num_classes=num_classes,
    )


def per_stage(
    name: str, parts: T | Spec[T] | tuple[T | Spec[T], ...], count: int, *, own_weights: bool = False
) -> tuple[T | Spec[T], ...]:
    """One part for each stage, of which one may be given for all.

    Args:
        name: What to call them in errors.
        parts: One, or one for each stage.
        count: Number of stages.
        own_weights: Whether stages may not share one instance.

    Raises:
        ValueError: Their number is not that of the stages, or an instance is shared.
    """
    if isinstance(parts, tuple):
        if len(parts) != count:
            raise ValueError(
                f"{name}: {len(parts)} for {count} stages; give one for each of stage_loss_weights, "
                "or a single one for all"
            )
        return parts
    if own_weights and count > 1 and not isinstance(parts, Spec):
        raise ValueError(
            f"{name}: the {count} stages would share the weights of one instance; give "
            f"{type(parts).__name__}.spec(...), or one for each"
        )
    return (parts,) * count


def make_extractors(
    name: str,
    parts: Part[RoIExtractor] | tuple[Part[RoIExtractor], ...],
    count: int,
    in_features: tuple[FeatureSpec, ...],
) -> list[RoIExtractor]:
    """The extractor of each stage, for the pyramid; see :func:`per_stage`."""
    return [make(part, in_features=in_features) for part in per_stage(name, parts, count)]


def make_heads(
    name: str,
    parts: Head | Spec[Head] | tuple[Head | Spec[Head], ...],
    sources: Sequence[RoIExtractor],
    num_classes: int,
) -> list[Head]:
    """The head of each stage, for what its extractor gives; see :func:`per_stage`."""
    heads = per_stage(name, parts, len(sources), own_weights=True)
    return [make_head(head, source, num_classes) for head, source in zip(heads, sources, strict=True)]
