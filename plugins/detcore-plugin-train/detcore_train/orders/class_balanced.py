"""Images of rare classes more often."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from detcore_data import DatasetFacts
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from detcore_train.interfaces import EpochOrder


class ClassBalancedOrder(EpochOrder):
    """Repeat factor sampling: images of rare classes come more often (Gupta et al., "LVIS", arXiv:1908.03195).

    A class that is in the fraction f of all images has the factor max(1, sqrt(oversample_thr / f)); an image has
    the largest factor of its classes, and comes so often in an epoch. Images without objects come once, and regions
    to ignore do not count. Each repetition is transformed anew.

    Args:
        oversample_thr: Fraction of images below which a class is rare.
        rounding: What becomes of factors that are no whole numbers: "ceil" rounds them up, the same in every epoch
            (MMDetection's ``ClassBalancedDataset``); "random" rounds up or down by chance, anew in each epoch, so
            that an image comes as often on average as its factor says.
    """

    def __init__(
        self,
        *,
        oversample_thr: Annotated[float, Field(gt=0, le=1)],
        rounding: Literal["ceil", "random"] = "ceil",
    ) -> None:
        self.oversample_thr, self.rounding = oversample_thr, rounding

    def length(self, facts: DatasetFacts) -> int:
        """See :class:`~detcore_train.interfaces.EpochOrder`."""
        factors = self.factors(facts)
        return int(factors.ceil().sum()) if self.rounding == "ceil" else _whole(factors)

    def order(self, facts: DatasetFacts, epoch: int, generator: torch.Generator) -> list[int]:
        """See :class:`~detcore_train.interfaces.EpochOrder`."""
        factors = self.factors(facts)
        if self.rounding == "ceil":
            images, times = torch.arange(len(facts)), factors.ceil().long()
        else:
            images = torch.randperm(len(facts), generator=generator)
            times = _drawn(factors[images], torch.rand((), generator=generator, dtype=torch.float64))
        chosen = torch.repeat_interleave(images, times)
        return chosen[torch.randperm(len(chosen), generator=generator)].tolist()

    def factors(self, facts: DatasetFacts) -> Float[Tensor, "I"]:
        """How often each image comes; at least 1.

        Args:
            facts: Of I images.
        """
        image, label = facts.present.unbind(1)
        images_with = torch.bincount(label, minlength=facts.num_classes).double()
        of_class = (self.oversample_thr * len(facts) / images_with.clamp(min=1)).sqrt().clamp(min=1)
        return torch.ones(len(facts), dtype=torch.float64).scatter_reduce(0, image, of_class[label], "amax")


def _whole(factors: Float[Tensor, "I"]) -> int:
    """The sum, rounded up (but for the sum's own rounding errors)."""
    return int((factors.sum() - 1e-9 * len(factors)).ceil())


def _drawn(factors: Float[Tensor, "I"], start: Tensor) -> Tensor:
    """Whole numbers whose means are the factors, and whose sum is always the same.

    The factors are laid end to end and stretched to a whole length (by less than one part in their sum, so that
    none falls below 1); each counts the whole numbers that lie in it after a common random shift.
    """
    total = _whole(factors)
    ends = factors.cumsum(0)
    ends = (ends * (total / ends[-1]) + start).floor().long()
    ends[-1] = total
    return ends.diff(prepend=ends.new_zeros(1))
