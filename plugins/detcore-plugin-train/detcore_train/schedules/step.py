"""Warm-up and steps."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from detcore_train.interfaces import Progress, Schedule
from detcore_train.schedules.warmup import Warmup, WarmupEnd, WarmupEpochs, warmup_factor, warmup_length

#: A whole number of epochs, or a fraction (below 1) of the whole run.
Milestone = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)]


class StepSchedule(Schedule):
    """A constant learning rate that is multiplied by ``gamma`` at each milestone, after a warm-up.

    The defaults are the field's "1x": steps after 8 and 11 of 12 epochs (as fractions, so that they hold for
    any number of epochs) and a linear warm-up over 500 steps.

    Args:
        milestones: Where to step: whole epochs, or fractions of the run below 1.
        gamma: Factor of each step.
        warmup_steps: Length of the warm-up in optimizer steps; 0 for none.
        warmup_epochs: Its length in epochs, in place of ``warmup_steps`` where it is given.
        warmup_ratio: Factor at its begin.
        warmup: How it rises.
        warmup_end: Whether its last step ("last_step", as MMDetection 3.x) or the one after it ("next_step",
            as MMDetection 2.x) is the first with the full learning rate.
    """

    def __init__(
        self,
        *,
        milestones: tuple[Milestone, ...] = (2 / 3, 11 / 12),
        gamma: Annotated[float, Field(gt=0, le=1)] = 0.1,
        warmup_steps: Annotated[int, Field(ge=0)] = 500,
        warmup_epochs: WarmupEpochs = None,
        warmup_ratio: Annotated[float, Field(gt=0, le=1)] = 0.001,
        warmup: Warmup = "linear",
        warmup_end: WarmupEnd = "last_step",
    ) -> None:
        self.milestones, self.gamma = milestones, gamma
        self.warmup_steps, self.warmup_ratio = warmup_steps, warmup_ratio
        self.warmup, self.warmup_end, self.warmup_epochs = warmup, warmup_end, warmup_epochs

    def factor(self, progress: Progress) -> float:
        """See :class:`~detcore_train.interfaces.Schedule`."""
        length = warmup_length(progress, self.warmup_steps, self.warmup_epochs)
        rise = warmup_factor(progress.step, length, self.warmup_ratio, self.warmup, self.warmup_end)
        passed = sum(progress.step >= self._step_of(milestone, progress) for milestone in self.milestones)
        return rise * self.gamma**passed

    def _step_of(self, milestone: float, progress: Progress) -> int:
        if milestone < 1:
            return round(milestone * progress.total)
        return int(milestone) * progress.steps_per_epoch
