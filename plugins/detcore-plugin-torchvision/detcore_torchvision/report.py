"""What became of every weight of an imported model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class KeyReport:
    """What became of every weight; names are torchvision's, but for ``missing``.

    Args:
        mapped: Name there -> name here.
        converted: Those of ``mapped`` whose rows were chosen or put in another order, and how.
        unused: Names there that have no place here.
        missing: Names here that got no value.
        mismatched: Name there -> (shape that it gives, shape here), where they differ.
    """

    mapped: dict[str, str]
    converted: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Whether every weight has its place, and every place its weight."""
        return not (self.unused or self.missing or self.mismatched)

    def describe(self) -> str:
        """What does not fit, on one line."""
        shapes = [
            f"{n} ({list(there)} there, {list(here)} here)" for n, (there, here) in self.mismatched.items()
        ]
        parts: tuple[tuple[str, Sequence[str]], ...] = (
            ("missing", self.missing),
            ("unused", self.unused),
            ("of another shape", shapes),
        )
        return "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in parts if names)


def _some(names: Sequence[str], limit: int = 5) -> str:
    more = f", ... and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
