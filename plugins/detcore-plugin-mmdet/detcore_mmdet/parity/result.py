"""What a comparison found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor


@dataclass
class Result:
    """The largest relative errors of one golden, by section, and what is beyond the tolerance.

    Args:
        errors: Section ("forward", "loss", ...) -> largest relative error.
        problems: Every number beyond its tolerance, in words.
    """

    errors: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def compare(
        self,
        section: str,
        name: str,
        got: Any,
        want: Any,
        *,
        rtol: float,
        atol: float = 0.0,
        scale: float | None = None,
    ) -> None:
        """Compares arrays of numbers.

        Args:
            section: Where the error counts.
            name: What is compared.
            got: Ours.
            want: The reference's.
            rtol: Tolerance, relative to each number.
            atol: Tolerance on top.
            scale: What errors are relative to; the largest of the reference's numbers where None.
        """
        got, want = _array(got), _array(want)
        if got.shape != want.shape:
            self.problems.append(f"{name}: shape {got.shape}, the reference has {want.shape}")
            return
        with np.errstate(invalid="ignore"):  # equal infinities differ by nothing
            difference = np.where(got == want, 0.0, np.abs(got - want))
        size = float(np.abs(want[np.isfinite(want)]).max(initial=0.0)) if scale is None else scale
        error = float(difference.max(initial=0.0)) / (size or 1.0)
        self.errors[section] = max(self.errors.get(section, 0.0), error)
        with np.errstate(invalid="ignore"):
            fine = difference <= atol + rtol * np.abs(want)
        if not fine.all():
            worst = np.unravel_index(np.where(fine, 0, difference).argmax(), fine.shape) if fine.shape else ()
            self.problems.append(
                f"{name}: {(~fine).sum()}/{fine.size} differ, e.g. {got[worst]} for {want[worst]}"
            )

    def count(self, section: str, name: str, wrong: int, of: int) -> None:
        """Compares things that are equal or not: indices, states."""
        self.errors[section] = max(self.errors.get(section, 0.0), wrong / max(of, 1))
        if wrong:
            self.problems.append(f"{name}: {wrong}/{of} differ")

    def merge(self, other: Result) -> None:
        """Takes another result in."""
        for section, error in other.errors.items():
            self.errors[section] = max(self.errors.get(section, 0.0), error)
        self.problems += other.problems


def _array(value: Any) -> np.ndarray[Any, Any]:
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    return array.astype(np.float64)
