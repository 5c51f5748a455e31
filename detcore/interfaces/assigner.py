"""The interface of assigners."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from detcore.component import Component
from detcore.structures import Assignment, ImageBatch, Predictions, Priors, Targets


class Assigner(Component):
    """Which ground truth each prior answers for.

    Invariants: padded rows of ``targets`` change nothing; a row flagged ``ignore`` is never assigned; a prior that
    is not ``priors.valid`` gets state -1; an image's result does not depend on the others; no ground truth means
    every valid prior is negative (where the method knows negatives); memory is bounded (never B x M x N at once
    where that is large).
    """

    kind: ClassVar[str] = "assigners"

    #: What it reads beside boxes and targets, from: "levels" (the grid in ``priors.levels``), "strides", "logits",
    #: "boxes" (decoded predictions), "masks", "batch" (image sizes).
    needs: frozenset[str] = frozenset()

    @abstractmethod
    def assign(
        self,
        priors: Priors,
        targets: Targets,
        predictions: Predictions | None = None,
        batch: ImageBatch | None = None,
    ) -> Assignment:
        """Assigns every prior of every image.

        Args:
            priors: N priors.
            targets: Ground truth, padded to M.
            predictions: Where ``needs`` names any of them.
            batch: Where ``needs`` names it.
        """
