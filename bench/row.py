"""What a benchmark is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: Prepares the work and returns what does it once; only the latter is timed.
Prepare = Callable[[], Callable[[], Any]]


@dataclass(frozen=True)
class Row:
    """One piece of work that detcore and its peers do.

    Args:
        title: What is done, for the table.
        contenders: By name; "detcore" is one of them. "mmdet" runs in the environment that the user names.
        limits: Contenders that cannot do it, with the reason.
        targets: How many times as long each peer should take, by name.
        why: What keeps a row from its target, and what would reach it; shown where it is missed.
        runs: Timed runs of each contender; as many as the command line asks for where None.
        max_seconds: Our own longest time that is wanted, where no peer sets the measure.
        max_memory: Our own highest peak that is wanted, in bytes.
    """

    title: str
    contenders: Mapping[str, Prepare]
    limits: Mapping[str, str] = field(default_factory=dict)
    targets: Mapping[str, float] = field(default_factory=dict)
    why: str = ""
    runs: int | None = None
    max_seconds: float | None = None
    max_memory: int | None = None
