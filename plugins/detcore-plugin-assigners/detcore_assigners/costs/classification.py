"""The cost of a class under softmax."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from detcore.structures import ImageBatch, Predictions, Targets
from detcore_assigners.costs.labels import of_labels
from detcore_assigners.costs.match_cost import MatchCost


class ClassificationCost(MatchCost):
    """Minus the probability of the ground truth's class, by softmax over all channels.

    Carion et al., "End-to-End Object Detection with Transformers" (arXiv:2005.12872), equation 1.

    Args:
        weight: Factor.
    """

    needs = frozenset({"logits"})

    def __init__(self, *, weight: Annotated[float, Field(ge=0)] = 1.0) -> None:
        self.weight = weight

    def cost(
        self, predictions: Predictions, targets: Targets, batch: ImageBatch | None = None
    ) -> Float[Tensor, "B N M"]:
        """See :class:`~detcore_assigners.costs.match_cost.MatchCost`; reads logits and labels."""
        return of_labels(predictions.logits.float().softmax(dim=-1), targets).mul(-self.weight)
