"""The grids of priors, level by level."""

from __future__ import annotations

from collections.abc import Iterator

from detcore.structures import PriorLevel, Priors


def levels_of(priors: Priors, assigner: str) -> Iterator[tuple[PriorLevel, slice]]:
    """Each level with the place of its priors among all.

    Args:
        priors: All priors.
        assigner: Who asks, for the message.

    Raises:
        ValueError: The priors have no levels, or levels of another number of priors.
    """
    counts = [level.count for level in priors.levels]
    if sum(counts) != len(priors) or not counts:
        raise ValueError(
            f"{assigner} works level by level: priors.levels should describe all {len(priors)} priors, got "
            f"levels of {counts}; use priors from a prior generator"
        )
    return _places(priors)


def _places(priors: Priors) -> Iterator[tuple[PriorLevel, slice]]:
    first = 0
    for level in priors.levels:
        yield level, slice(first, first + level.count)
        first += level.count
