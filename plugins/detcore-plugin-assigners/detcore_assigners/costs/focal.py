"""The focal loss as a cost, of classes or of masks."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from detcore.structures import ImageBatch, Predictions, Targets
from detcore_assigners.costs.labels import of_labels
from detcore_assigners.costs.mask_places import places_of
from detcore_assigners.costs.match_cost import MatchCost


class FocalLossCost(MatchCost):
    """What the focal loss of a prediction grows by when it is matched.

    With p = sigmoid(logit), positive = -``alpha`` (1 - p)^``gamma`` log(p + ``eps``) and
    negative = -(1 - ``alpha``) p^``gamma`` log(1 - p + ``eps``): of classes it is positive - negative for the
    ground truth's class; of masks the mean over places of positive inside of the ground truth's mask and of
    negative outside.

    Zhu et al., "Deformable DETR" (arXiv:2010.04159); Lin et al., "Focal Loss" (arXiv:1708.02002).

    Args:
        alpha: Weight of positives, 1 - ``alpha`` that of negatives.
        gamma: Power that plays down what is easy.
        eps: Added to probabilities before the logarithm.
        binary_input: Whether it is the cost of masks; else of classes.
        weight: Factor.
    """

    def __init__(
        self,
        *,
        alpha: Annotated[float, Field(ge=0, le=1)] = 0.25,
        gamma: Annotated[float, Field(ge=0)] = 2.0,
        eps: Annotated[float, Field(ge=0)] = 1e-12,
        binary_input: bool = False,
        weight: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        self.alpha = alpha
        self.gamma = gamma
        self.eps = eps
        self.binary_input = binary_input
        self.weight = weight
        self.needs = frozenset({"masks"} if binary_input else {"logits"})

    def cost(
        self, predictions: Predictions, targets: Targets, batch: ImageBatch | None = None
    ) -> Float[Tensor, "B N M"]:
        """See :class:`~detcore_assigners.costs.match_cost.MatchCost`; reads logits and labels, or masks.

        Raises:
            ValueError: ``binary_input`` is set, and predictions or targets have no masks.
        """
        if not self.binary_input:
            positive, negative = self._terms(predictions.logits.float())
            return of_labels(positive - negative, targets) * self.weight
        logits, places = places_of(predictions, targets)
        positive, negative = self._terms(logits)
        total = negative.sum(dim=2, keepdim=True) + places.inner(positive - negative)
        return total * (self.weight / max(1, logits.shape[2]))

    def _terms(self, logits: Float[Tensor, "*S"]) -> tuple[Float[Tensor, "*S"], Float[Tensor, "*S"]]:
        p = logits.sigmoid()
        positive = -(p + self.eps).log() * self.alpha * (1 - p) ** self.gamma
        negative = -(1 - p + self.eps).log() * (1 - self.alpha) * p**self.gamma
        return positive, negative
