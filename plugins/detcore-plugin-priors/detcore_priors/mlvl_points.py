"""Points under the name that MMDetection has for them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from detcore.component import wired
from detcore_priors.points import PointGenerator

_Step = Annotated[int, Field(ge=1)]


class MlvlPointGenerator(PointGenerator):
    """:class:`PointGenerator`, for those who look for MMDetection's name of it.

    What MMDetection calls ``PointGenerator`` is the same with ``offset=0``.

    Args:
        offset: Where in its cell the point lies: 0 at the top left corner, 0.5 in the middle.
        strides: Pixels per cell, by level; a pair is (x, y).
    """

    def __init__(
        self,
        *,
        offset: Annotated[float, Field(ge=0, le=1)] = 0.5,
        strides: Annotated[tuple[_Step | tuple[_Step, _Step], ...], Field(min_length=1)] = wired(
            may_override=True
        ),
    ) -> None:
        super().__init__(offset=offset, strides=strides)
