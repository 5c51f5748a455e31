"""The part of a run in which a schedule falls."""

from __future__ import annotations

from typing import Literal

from detcore_train.interfaces import Progress


def span(progress: Progress, begin: float, by: Literal["step", "epoch"]) -> tuple[int, int, int]:
    """Begin of the fall, the present position, and the end of the run, in steps or in epochs.

    Args:
        progress: Where the run stands.
        begin: Fraction of the run before the fall.
        by: What to count.
    """
    here, end = (progress.step, progress.total) if by == "step" else (progress.epoch, progress.epochs)
    return min(round(begin * end), end - 1), here, end
