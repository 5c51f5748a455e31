"""No sampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch

from detcore.interfaces import Sampler
from detcore.interfaces.sampler import SamplingPredictions
from detcore.structures import Assignment, Sample


class PseudoSampler(Sampler):
    """Takes every positive and every negative, for losses that weigh all priors themselves (focal loss)."""

    subsamples: ClassVar[bool] = False

    def sample(
        self,
        assignment: Assignment,
        *,
        predict: Callable[[], SamplingPredictions] | None = None,
        generator: torch.Generator | None = None,
    ) -> Sample:
        """See :meth:`detcore.interfaces.Sampler.sample`; reads the assignment only."""
        return Sample(assignment.positive, assignment.negative)
