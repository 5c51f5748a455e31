"""Sizes and shapes of SSD's anchors."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from detcore_priors.anchors import AnchorGenerator
from detcore_priors.shapes import anchor_sides, check_count

#: (input size, smallest fraction in percent) -> fractions of the first level's minimum and maximum, in percent.
_FIRST_LEVEL = {(300, 15): (7, 15), (300, 20): (10, 20), (512, 10): (4, 10), (512, 15): (7, 15)}


def cell_sides(
    size: tuple[float, float], ratios: Sequence[float], *, scale_major: bool
) -> tuple[Float[Tensor, "A"], Float[Tensor, "A"]]:
    """Widths and heights of a cell's anchors: both squares, then each ratio after its inverse.

    Args:
        size: Minimum and maximum size of the level, in pixels.
        ratios: Height divided by width.
        scale_major: Whether they are taken from the wrong places of the list; see :class:`SSDAnchorGenerator`.
    """
    shapes = (1.0, *(value for ratio in ratios for value in (1 / ratio, ratio)))
    every = AnchorGenerator(
        ratios=shapes,
        scales=(1.0, (size[1] / size[0]) ** 0.5),
        base_sizes=(size[0],),
        scale_major=scale_major,
        centers=((0.0, 0.0),),
        strides=(1,),
    )
    ((widths, heights),) = anchor_sides(every)
    # of all shapes in both scales, the first in both, the others in the first scale
    order = [0, len(shapes), *range(1, len(shapes))]
    return widths[order], heights[order]


def size_ranges(
    min_sizes: tuple[float, ...] | None,
    max_sizes: tuple[float, ...] | None,
    ratios: Sequence[Sequence[float]],
    strides: Sequence[tuple[int, int]],
    *,
    input_size: int,
    limits: tuple[float, float],
) -> tuple[tuple[float, float], ...]:
    """Minimum and maximum size of each level, in pixels.

    Raises:
        ValueError: They do not fit each other or the levels, or are not known for the input.
    """
    if (min_sizes is None) != (max_sizes is None):
        given, missing = ("max_sizes", "min_sizes") if min_sizes is None else ("min_sizes", "max_sizes")
        raise ValueError(f"{missing} missing; give it with {given}, or neither")
    check_count("ratios", ratios, strides)
    if min_sizes is None or max_sizes is None:
        return _even(input_size, limits, len(strides))
    check_count("min_sizes", min_sizes, strides)
    check_count("max_sizes", max_sizes, strides)
    for level, (low, high) in enumerate(zip(min_sizes, max_sizes, strict=True)):
        if high <= low:
            raise ValueError(f"max_sizes[{level}]={high} should be greater than min_sizes[{level}]={low}")
    return tuple(zip(min_sizes, max_sizes, strict=True))


def _even(input_size: int, limits: tuple[float, float], levels: int) -> tuple[tuple[float, float], ...]:
    """The sizes of SSD300 and SSD512, from whole percents, as its authors computed them."""
    low, high = (int(limit * 100) for limit in limits)
    first = _FIRST_LEVEL.get((input_size, low))
    if first is None:
        known = ", ".join(f"{size} with {percent / 100}" for size, percent in _FIRST_LEVEL)
        raise ValueError(
            f"input_size={input_size} with basesize_ratio_range from {limits[0]}: sizes are known for {known}; "
            "give min_sizes and max_sizes"
        )
    step = (high - low) // (levels - 2) if levels > 2 else 0
    starts = range(low, high + 1, step) if step > 0 else ()
    if len(starts) + 1 != levels:
        raise ValueError(
            f"basesize_ratio_range={limits} cannot be spread over {levels} levels; give min_sizes and max_sizes"
        )
    percents = [first, *((start, start + step) for start in starts)]
    return tuple((int(input_size * a / 100), int(input_size * b / 100)) for a, b in percents)
