"""Resizing to one size."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from detcore.interfaces import Example, Transform
from detcore_data.functional import rescaled_size, resize, short_edge_size

Edge = Annotated[int, Field(ge=1)]


class Resize(Transform):
    """Scales image, boxes and masks.

    Sizes are rounded half up, and boxes are scaled by the factors that this leaves in x and y, as in the
    reference.

    Args:
        scale: Two limits (w, h), in pixels: with ``keep_ratio`` the largest size whose long and short edges
            fit (in either order), without it the size itself. One number is the length of the short edge.
        max_size: Limit of the long edge, in pixels, where ``scale`` is one number.
        keep_ratio: Whether the shape stays the same.
        clip_object_border: Whether boxes are cut off at the image's border.
        antialias: Whether a smaller image averages over the pixels that it leaves out. The reference does
            not.
    """

    def __init__(
        self,
        *,
        scale: Edge | tuple[Edge, Edge],
        max_size: Edge | None = None,
        keep_ratio: bool = True,
        clip_object_border: bool = True,
        antialias: bool = True,
    ) -> None:
        if isinstance(scale, int) and not keep_ratio:
            raise ValueError("keep_ratio=False needs both edges: give scale=(w, h)")
        if max_size is not None and not isinstance(scale, int):
            raise ValueError("max_size belongs to a short edge: give scale=SHORT_EDGE, or leave max_size out")
        if max_size is not None and isinstance(scale, int) and max_size < scale:
            raise ValueError(f"max_size={max_size} is shorter than the short edge scale={scale}")
        self.scale, self.max_size, self.keep_ratio = scale, max_size, keep_ratio
        self.clip_object_border, self.antialias = clip_object_border, antialias

    def __call__(self, example: Example) -> Example:
        """See :class:`~detcore.interfaces.Transform`."""
        height, width = example["image"].shape[-2:]
        size = self.size_of((height, width))
        return resize(example, size, antialias=self.antialias, clip=self.clip_object_border)

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """The new (h, w) of an image of (h, w), in pixels."""
        if isinstance(self.scale, int):
            return short_edge_size(size, self.scale, self.max_size)
        if self.keep_ratio:
            return rescaled_size(size, self.scale)
        return self.scale[1], self.scale[0]
