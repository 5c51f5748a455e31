"""The warm-up that every schedule can begin with."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from detcore_train.interfaces import Progress

Warmup = Literal["linear", "constant", "exp"]
WarmupEnd = Literal["last_step", "next_step"]
#: Length of a warm-up in epochs, which need be no whole number; None where it is told in steps.
WarmupEpochs = Annotated[float, Field(ge=0)] | None


def warmup_length(progress: Progress, steps: int, epochs: float | None) -> int:
    """Length of a warm-up in optimizer steps.

    Args:
        progress: Tells how many steps an epoch has.
        steps: The length in steps.
        epochs: The length in epochs, which counts where it is given.
    """
    return steps if epochs is None else round(epochs * progress.steps_per_epoch)


def warmup_factor(step: int, steps: int, ratio: float, warmup: Warmup, end: WarmupEnd) -> float:
    """The factor of the warm-up on the learning rate; 1 once it is over.

    Args:
        step: Optimizer steps taken before this one.
        steps: Length of the warm-up, in optimizer steps; 0 for none.
        ratio: The factor at step 0.
        warmup: "linear" rises evenly, "exp" by the same factor each step, "constant" stays at ``ratio``.
        end: Where the factor reaches 1: at the "last_step" of the warm-up (MMDetection 3.x, mmengine) or at
            the "next_step" after it (MMDetection 2.x, mmcv 1.x).
    """
    rises = steps - 1 if end == "last_step" else steps
    if step >= rises:
        return 1.0
    if warmup == "constant":
        return ratio
    done = step / rises
    return ratio ** (1.0 - done) if warmup == "exp" else ratio + (1.0 - ratio) * done
