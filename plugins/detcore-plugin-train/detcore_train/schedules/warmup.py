"""The warm-up that every schedule can begin with."""

from __future__ import annotations

from typing import Literal

Warmup = Literal["linear", "constant", "exp"]
WarmupEnd = Literal["last_step", "next_step"]


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
