"""Mirroring at random."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import Field

from detcore.interfaces import Example, Transform
from detcore_data.functional import flip

Probability: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Direction: TypeAlias = Literal["horizontal", "vertical", "diagonal"]

#: Whether (x, y) are mirrored.
_AXES = {"horizontal": (True, False), "vertical": (False, True), "diagonal": (True, True)}


class RandomFlip(Transform):
    """Mirrors image, boxes and masks with some probability; a box's x becomes width - x, without -1.

    Args:
        prob: Probability that the image is mirrored, shared evenly by several directions; or one for each
            of them, in all at most 1.
        direction: Which way, or several, of which one is drawn. ``horizontal`` lets left and right change
            places; ``diagonal`` does both.
    """

    def __init__(
        self,
        *,
        prob: Probability | tuple[Probability, ...] = 0.5,
        direction: Direction | tuple[Direction, ...] = "horizontal",
    ) -> None:
        directions = direction if isinstance(direction, tuple) else (direction,)
        chances = prob if isinstance(prob, tuple) else (prob / max(1, len(directions)),) * len(directions)
        if not directions or len(chances) != len(directions):
            raise ValueError(f"prob should be one number or one per direction, got {prob} for {direction}")
        if sum(chances) > 1 + 1e-6:
            raise ValueError(f"the probabilities of the directions should add up to at most 1, got {prob}")
        self._axes = tuple(_AXES[name] for name in directions)
        self._limits = torch.tensor(chances, dtype=torch.float64).cumsum(0)

    def __call__(self, example: Example) -> Example:
        """See :class:`~detcore.interfaces.Transform`."""
        drawn = int((self._limits <= torch.rand((), dtype=torch.float64)).sum())
        return flip(example, *self._axes[drawn]) if drawn < len(self._axes) else flip(example, False, False)
