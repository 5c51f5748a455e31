"""What a value of a configuration may be, and how large."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: Most entries that one value may hold, characters in a text, digits (binary) of a number, levels of nesting.
MAX_LEAVES, MAX_TEXT, MAX_BITS, MAX_DEPTH = 200_000, 1_000_000, 1024, 100
#: Most entries that may be made in a whole file, each intermediate value counted.
MAX_WORK = 5_000_000

SCALARS = (str, int, float, bool, type(None))
NUMBERS = (int, float)


class Refused(Exception):  # noqa: N818 - never seen by users
    """Something that is no plain data; becomes an error with file and line."""


def check_size(value: Any) -> int:
    """The number of entries of a value, long texts counting for several.

    Raises:
        Refused: It is beyond the limits of this module.
    """
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise Refused(f"a text of more than {MAX_TEXT} characters")
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise Refused(f"a number of more than {MAX_BITS} bits")
    total = 0
    for cost in _costs(value, 0):
        total += cost
        if total > MAX_LEAVES:
            raise Refused(f"a value with more than {MAX_LEAVES} entries")
    return total


def _costs(value: Any, depth: int) -> Iterator[int]:
    if depth > MAX_DEPTH:
        raise Refused(f"nested more than {MAX_DEPTH} levels deep")
    yield 1 + len(value) // 16 if isinstance(value, str) else 1
    items = (
        value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    )
    for item in items:
        yield from _costs(item, depth + 1)


def as_iterable(value: Any) -> Sequence[Any]:
    """A list, tuple or range as it is.

    Raises:
        Refused: It is something else, or too long.
    """
    if not isinstance(value, (list, tuple, range)):
        raise Refused(f"expected a list or a tuple, got {type(value).__name__}")
    if len(value) > MAX_LEAVES:
        raise Refused(f"a value with more than {MAX_LEAVES} entries")
    return value


def as_mapping(value: Any) -> Mapping[Any, Any]:
    """A mapping as it is.

    Raises:
        Refused: It is something else.
    """
    if not isinstance(value, Mapping):
        raise Refused(f"expected a dict to spread, got {type(value).__name__}")
    return value
