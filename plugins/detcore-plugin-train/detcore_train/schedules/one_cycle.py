"""One cycle of rise and fall."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from detcore_train.interfaces import Progress, Schedule

Anneal = Literal["cos", "linear"]


class OneCycleSchedule(Schedule):
    """A rise to the optimizer's learning rate and a fall far below it (Smith and Topin, arXiv:1708.07120).

    The optimizer's ``lr`` is the peak. The learning rate of every step equals that of
    :class:`torch.optim.lr_scheduler.OneCycleLR` with ``max_lr=lr`` and the run's number of steps. The rise is the
    warm-up; there is no other. Only the learning rate cycles: schedules have no say in momentum, so this is
    torch's ``cycle_momentum=False``.

    Args:
        pct_start: Fraction of the run in which the learning rate rises.
        anneal_strategy: Along half a cosine ("cos") or a straight line ("linear").
        div_factor: The run begins at lr / div_factor.
        final_div_factor: It ends at lr / (div_factor * final_div_factor).
        three_phase: Whether the fall takes as many steps as the rise, back to where the run began, and a third
            phase goes from there to the end. Otherwise the fall goes to the end at once.
    """

    def __init__(
        self,
        *,
        pct_start: Annotated[float, Field(ge=0, le=1)] = 0.3,
        anneal_strategy: Anneal = "cos",
        div_factor: Annotated[float, Field(gt=0)] = 25.0,
        final_div_factor: Annotated[float, Field(gt=0)] = 1e4,
        three_phase: bool = False,
    ) -> None:
        if three_phase and pct_start > 0.5:
            raise ValueError(
                f"three_phase falls in as many steps as it rises, so pct_start should be at most 0.5, got {pct_start}"
            )
        self.pct_start, self.anneal_strategy, self.three_phase = pct_start, anneal_strategy, three_phase
        self.div_factor, self.final_div_factor = div_factor, final_div_factor

    def factor(self, progress: Progress) -> float:
        """See :class:`~detcore_train.interfaces.Schedule`."""
        step, begin = min(progress.step, progress.total - 1), 0.0
        for end, low, high in self._phases(progress.total):
            if step <= end:
                done = (step - begin) / (end - begin) if end > begin else 1.0
                return _between(low, high, done, self.anneal_strategy)
            begin = end
        return self._last

    @property
    def _last(self) -> float:
        return 1 / (self.div_factor * self.final_div_factor)

    def _phases(self, total: int) -> Iterator[tuple[float, float, float]]:
        """The last step of each phase, which need be no whole number, and the factors that it goes between."""
        first = 1 / self.div_factor
        peak = self.pct_start * total - 1
        yield peak, first, 1.0
        if self.three_phase:
            yield 2 * self.pct_start * total - 2, 1.0, first
            yield total - 1, first, self._last
        else:
            yield total - 1, 1.0, self._last


def _between(low: float, high: float, done: float, strategy: Anneal) -> float:
    if strategy == "linear":
        return low + (high - low) * done
    return high + (low - high) / 2 * (1 + math.cos(math.pi * done))
