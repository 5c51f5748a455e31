"""Resizing to a size that is drawn for each image."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field

from detcore.interfaces import Example, Transform
from detcore_data.functional import rescaled_size, resize

Edge = Annotated[int, Field(ge=1)]
Scale = tuple[int, int]


class MultiScaleResize(Transform):
    """Scales image, boxes and masks to one of several sizes, or to one between two.

    Args:
        scales: Limits (w, h) in pixels; see :class:`Resize` for what becomes of them.
        mode: ``value`` draws one of ``scales``. ``range`` draws both edges, as integers, between those of two
            ``scales``, ends included.
        ratio_range: Lowest and highest factor for a single scale; the factor is drawn uniformly, and the
            edges are rounded down. Excludes ``range``.
        keep_ratio: Whether the shape stays the same.
        clip_object_border: Whether boxes are cut off at the image's border.
        antialias: Whether a smaller image averages over the pixels that it leaves out. The reference does
            not.
    """

    def __init__(
        self,
        *,
        scales: Annotated[tuple[tuple[Edge, Edge], ...], Field(min_length=1)],
        mode: Literal["value", "range"] = "value",
        ratio_range: tuple[float, float] | None = None,
        keep_ratio: bool = True,
        clip_object_border: bool = True,
        antialias: bool = True,
    ) -> None:
        if mode == "range" and len(scales) != 2:
            raise ValueError(f"mode='range' draws between two scales, got {len(scales)}")
        if ratio_range is not None:
            if mode == "range" or len(scales) != 1:
                raise ValueError(
                    f"ratio_range needs a single scale and mode='value', got {len(scales)} and {mode!r}"
                )
            if not 0 < ratio_range[0] <= ratio_range[1]:
                raise ValueError(f"ratio_range should be 0 < lowest <= highest, got {ratio_range}")
        self.scales, self.mode, self.ratio_range = scales, mode, ratio_range
        self.keep_ratio, self.clip_object_border, self.antialias = keep_ratio, clip_object_border, antialias

    def __call__(self, example: Example) -> Example:
        """See :class:`~detcore.interfaces.Transform`."""
        scale = self.draw()
        height, width = example["image"].shape[-2:]
        size = rescaled_size((height, width), scale) if self.keep_ratio else (scale[1], scale[0])
        return resize(example, size, antialias=self.antialias, clip=self.clip_object_border)

    def draw(self) -> Scale:
        """One (w, h) limit."""
        if self.ratio_range is not None:
            low, high = self.ratio_range
            factor = low + (high - low) * float(torch.rand(()))
            width, height = (max(1, int(edge * factor)) for edge in self.scales[0])
            return width, height
        if self.mode == "range":
            (w1, h1), (w2, h2) = self.scales
            return _between(w1, w2), _between(h1, h2)
        return self.scales[int(torch.randint(len(self.scales), ()))]


def _between(a: int, b: int) -> int:
    return int(torch.randint(min(a, b), max(a, b) + 1, ()))
