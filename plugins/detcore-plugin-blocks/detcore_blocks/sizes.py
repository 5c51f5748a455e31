"""Checks of kernel sizes."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise ValueError(f"a side of {size} cells has no middle; use an odd number, so that the size is kept")
    return size


#: Side of a kernel that keeps the size, in cells.
OddSize = Annotated[int, Field(ge=1), AfterValidator(_odd)]
