"""Warm-up and a polynomial."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from detcore_train.interfaces import Progress, Schedule
from detcore_train.schedules.span import span
from detcore_train.schedules.warmup import Warmup, WarmupEnd, WarmupEpochs, warmup_factor, warmup_length


class PolySchedule(Schedule):
    """A polynomial from the full learning rate to ``min_ratio`` of it; a straight line where ``power`` is 1.

    Args:
        power: Exponent of what is left of the run.
        min_ratio: Factor at the last step (or epoch) of the run.
        begin: Fraction of the run that keeps the full learning rate before the fall begins.
        by: Whether the factor changes every "step" or every "epoch".
        warmup_steps: Length of the warm-up in optimizer steps; 0 for none.
        warmup_epochs: Its length in epochs, in place of ``warmup_steps`` where it is given.
        warmup_ratio: Factor at its begin.
        warmup: How it rises.
        warmup_end: See :class:`~detcore_train.StepSchedule`.
    """

    def __init__(
        self,
        *,
        power: Annotated[float, Field(gt=0)] = 1.0,
        min_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0,
        begin: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        by: Literal["step", "epoch"] = "step",
        warmup_steps: Annotated[int, Field(ge=0)] = 500,
        warmup_epochs: WarmupEpochs = None,
        warmup_ratio: Annotated[float, Field(gt=0, le=1)] = 0.001,
        warmup: Warmup = "linear",
        warmup_end: WarmupEnd = "last_step",
    ) -> None:
        self.power, self.min_ratio, self.begin, self.by = power, min_ratio, begin, by
        self.warmup_steps, self.warmup_ratio = warmup_steps, warmup_ratio
        self.warmup, self.warmup_end, self.warmup_epochs = warmup, warmup_end, warmup_epochs

    def factor(self, progress: Progress) -> float:
        """See :class:`~detcore_train.interfaces.Schedule`."""
        length = warmup_length(progress, self.warmup_steps, self.warmup_epochs)
        rise = warmup_factor(progress.step, length, self.warmup_ratio, self.warmup, self.warmup_end)
        first, here, end = span(progress, self.begin, self.by)
        left = 1.0 - min(max(here - first, 0) / max(end - first - 1, 1), 1.0)
        return rise * (self.min_ratio + (1 - self.min_ratio) * math.pow(left, self.power))
