"""The interface of matching costs."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from detcore.component import Component
from detcore.structures import ImageBatch, Predictions, Targets


class MatchCost(Component):
    """What it costs to match a prediction to a ground truth; lower is better, negative is allowed.

    Invariants: a pair's cost depends on that prediction and that ground truth only (and on what their image is
    like); rows of padding and rows to ignore get some cost or other that nobody looks at; without gradient.
    A cost that is not finite says that the pair is never matched.
    """

    kind: ClassVar[str] = "match_costs"

    #: What it reads, in the words of :attr:`detcore.interfaces.Assigner.needs`.
    needs: frozenset[str] = frozenset()

    @abstractmethod
    def cost(
        self, predictions: Predictions, targets: Targets, batch: ImageBatch | None = None
    ) -> Float[Tensor, "B N M"]:
        """The cost of every pair, its weight included.

        Args:
            predictions: N predictions per image.
            targets: Ground truth, padded to M.
            batch: Where ``needs`` names it.
        """
