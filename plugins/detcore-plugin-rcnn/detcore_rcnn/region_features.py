"""How an RoI head is put together from its parts: what each one is given."""

from __future__ import annotations

from typing import TypeVar

from detcore.component import Part, Spec, make
from detcore.interfaces import BBoxHead, MaskHead, RoIExtractor, SharedHead

Head = TypeVar("Head", BBoxHead, MaskHead)


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
