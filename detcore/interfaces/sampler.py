"""The interface of samplers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from detcore.component import Component
from detcore.structures import Assignment, Sample


class SamplingPredictions(NamedTuple):
    """What samplers that look at predictions get, lazily.

    Args:
        losses: Classification loss per prior [B, N].
        logits: [B, N, C].
        boxes: Decoded [B, N, 4]; of the class with the highest score, where each class has its own.
        scores: Probabilities of the K classes [B, N, K], background left out; None where the owner gives none.
    """

    losses: Tensor
    logits: Tensor
    boxes: Tensor
    scores: Tensor | None = None


class Sampler(Component):
    """Which of the assigned priors a loss is taken over.

    Ground truths that take part as proposals are prepended by the owner, before sampling.

    Invariants: a sampled positive is positive in the assignment, a negative negative; an image's sample
    depends on that image and its generator only.
    """

    kind: ClassVar[str] = "samplers"

    #: Whether it may leave assigned priors out. Losses over a subsample are averaged over all of it, losses
    #: over everything over the positives only.
    subsamples: ClassVar[bool] = True
    #: Most priors of an image that it takes; None where there is no such number.
    num: int | None = None

    @abstractmethod
    def sample(
        self,
        assignment: Assignment,
        *,
        predict: Callable[[], SamplingPredictions] | None = None,
        generator: torch.Generator | None = None,
    ) -> Sample:
        """Chooses among the assigned priors.

        Args:
            assignment: N assigned priors per image.
            predict: Gives losses, logits and boxes, for samplers that rank by them.
            generator: Source of randomness; torch's global one where None.
        """
