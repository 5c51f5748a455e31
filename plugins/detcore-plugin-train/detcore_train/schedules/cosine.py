"""Warm-up and half a cosine."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from detcore_train.interfaces import Progress, Schedule
from detcore_train.schedules.span import span
from detcore_train.schedules.warmup import Warmup, WarmupEnd, WarmupEpochs, warmup_factor, warmup_length


class CosineSchedule(Schedule):
    """Half a cosine down to ``min_ratio`` (Loshchilov and Hutter, arXiv:1608.03983).

    Args:
        min_ratio: Factor at the end of the run.
        begin: Fraction of the run that keeps the full learning rate before the cosine begins.
        by: Whether the factor changes every "step" or every "epoch".
        warmup_steps: Length of the warm-up in optimizer steps; 0 for none.
        warmup_epochs: Its length in epochs, in place of ``warmup_steps`` where it is given.
        warmup_ratio: Factor at its begin.
        warmup: How it rises.
        warmup_end: See :class:`~detcore_train.StepSchedule`.
        chained: Where warm-up and cosine overlap, False multiplies the two; True lets each rescale what the
            other left, floor included, as the reference's updates in place do (MMDetection 3.x).
    """

    def __init__(
        self,
        *,
        min_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0,
        begin: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        by: Literal["step", "epoch"] = "step",
        warmup_steps: Annotated[int, Field(ge=0)] = 500,
        warmup_epochs: WarmupEpochs = None,
        warmup_ratio: Annotated[float, Field(gt=0, le=1)] = 0.001,
        warmup: Warmup = "linear",
        warmup_end: WarmupEnd = "last_step",
        chained: bool = False,
    ) -> None:
        self.min_ratio, self.begin, self.by = min_ratio, begin, by
        self.warmup_steps, self.warmup_epochs, self.warmup_ratio = warmup_steps, warmup_epochs, warmup_ratio
        self.warmup, self.warmup_end, self.chained = warmup, warmup_end, chained

    def factor(self, progress: Progress) -> float:
        """See :class:`~detcore_train.interfaces.Schedule`."""
        first, here, end = span(progress, self.begin, self.by)
        unit = 1 if self.by == "step" else progress.steps_per_epoch
        length = warmup_length(progress, self.warmup_steps, self.warmup_epochs)
        height, known = 1.0, 0
        if self.chained:
            for k in range(1, min(here, end - 1) - first + 1):
                rise = self._rise((first + k) * unit, length)
                fall = _half_cosine(k / (end - first)) / _half_cosine((k - 1) / (end - first))
                height, known = (self.min_ratio + fall * (rise * height - self.min_ratio)) / rise, k
                if rise == 1.0:
                    break
        done = min(max(here - first, 0) / (end - first), 1.0)
        fall = _half_cosine(done) / _half_cosine(known / (end - first))
        return self._rise(progress.step, length) * (self.min_ratio + (height - self.min_ratio) * fall)

    def _rise(self, step: int, length: int) -> float:
        return warmup_factor(step, length, self.warmup_ratio, self.warmup, self.warmup_end)


def _half_cosine(done: float) -> float:
    """1 at 0, 0 at 1."""
    return (1 + math.cos(math.pi * done)) / 2
