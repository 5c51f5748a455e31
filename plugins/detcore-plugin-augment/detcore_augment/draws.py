"""Random numbers, from torch's global generator: who owns it decides what is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeAlias, TypeVar

import torch
from pydantic import Field

T = TypeVar("T")

Probability: TypeAlias = Annotated[float, Field(ge=0, le=1)]
#: An edge in pixels.
Edge: TypeAlias = Annotated[int, Field(ge=1)]
#: One channel of a colour.
Value: TypeAlias = Annotated[int, Field(ge=0, le=255)]
Color: TypeAlias = Value | tuple[Value, Value, Value]


def uniform(low: float, high: float) -> float:
    """A number in [low, high)."""
    return low + (high - low) * float(torch.rand((), dtype=torch.float64))


def integer(low: int, high: int) -> int:
    """An integer from low to high, both included."""
    return int(torch.randint(low, high + 1, ()))


def happens(probability: float) -> bool:
    """True with that probability; always at 1, never at 0."""
    return float(torch.rand((), dtype=torch.float64)) < probability


def one_of(items: Sequence[T]) -> T:
    """One of them, all being equally likely."""
    return items[integer(0, len(items) - 1)]


def check_range(name: str, values: tuple[float, float], low: float, high: float = float("inf")) -> None:
    """Checks a pair (lowest, highest).

    Raises:
        ValueError: It is not in order, or outside of [low, high]; names the parameter.
    """
    if not low <= values[0] <= values[1] <= high:
        limit = f" <= {high:g}" if high != float("inf") else ""
        raise ValueError(f"{name} should be {low:g} <= lowest <= highest{limit}, got {values}")


def rgb(color: Color) -> tuple[int, int, int]:
    """A colour as red, green and blue."""
    return (color, color, color) if isinstance(color, int) else color
