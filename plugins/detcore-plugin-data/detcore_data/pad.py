"""Padding to a fixed size or a multiple."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from detcore.errors import DataError
from detcore.interfaces import Example, Transform
from detcore_data.functional import pad

Edge = Annotated[int, Field(ge=1)]
Value = Annotated[int, Field(ge=0, le=255)]


class Pad(Transform):
    """Adds pixels at the right and the bottom; boxes stay where they are.

    Detectors pad their batches themselves: this is for networks that want one size, or another colour.

    Args:
        size: New (w, h), in pixels.
        size_divisor: Or: both edges become multiples of it, in pixels.
        pad_to_square: Or, or before that: both edges become as long as the longer one.
        pad_val: Value of the new pixels, one for all or red, green, blue, on the scale 0..255.
    """

    def __init__(
        self,
        *,
        size: tuple[Edge, Edge] | None = None,
        size_divisor: Edge | None = None,
        pad_to_square: bool = False,
        pad_val: Value | tuple[Value, Value, Value] = 0,
    ) -> None:
        if size is not None and (size_divisor is not None or pad_to_square):
            raise ValueError("size says all; leave out size_divisor and pad_to_square")
        if size is None and size_divisor is None and not pad_to_square:
            raise ValueError("give one of size, size_divisor and pad_to_square")
        self.size, self.size_divisor, self.pad_to_square = size, size_divisor, pad_to_square
        self.pad_val = (pad_val,) * 3 if isinstance(pad_val, int) else pad_val

    def __call__(self, example: Example) -> Example:
        """See :class:`~detcore.interfaces.Transform`.

        Raises:
            DataError: The image is larger than ``size``; names the file.
        """
        height, width = example["image"].shape[-2:]
        size = self.size_of((height, width))
        if size[0] < height or size[1] < width:
            raise DataError(
                f"{example['file']}: its {width} x {height} pixels do not fit into size={self.size}; "
                "resize it first"
            )
        return pad(example, size, self.pad_val)

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """The new (h, w) of an image of (h, w), in pixels."""
        if self.size is not None:
            return self.size[1], self.size[0]
        height, width = (max(size), max(size)) if self.pad_to_square else size
        divisor = self.size_divisor or 1
        return -(-height // divisor) * divisor, -(-width // divisor) * divisor
