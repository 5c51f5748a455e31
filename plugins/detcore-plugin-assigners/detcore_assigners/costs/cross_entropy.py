"""The cross entropy of masks as a cost."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from detcore.structures import ImageBatch, Predictions, Targets
from detcore_assigners.costs.mask_places import places_of
from detcore_assigners.costs.match_cost import MatchCost


class CrossEntropyLossCost(MatchCost):
    """The binary cross entropy of a predicted mask with the ground truth's, the mean over places.

    Cheng et al., "Masked-attention Mask Transformer" (arXiv:2112.01527).

    Args:
        weight: Factor.
    """

    needs = frozenset({"masks"})

    def __init__(self, *, weight: Annotated[float, Field(ge=0)] = 1.0) -> None:
        self.weight = weight

    def cost(
        self, predictions: Predictions, targets: Targets, batch: ImageBatch | None = None
    ) -> Float[Tensor, "B N M"]:
        """See :class:`~detcore_assigners.costs.match_cost.MatchCost`; reads masks.

        Raises:
            ValueError: Predictions or targets have no masks.
        """
        logits, places = places_of(predictions, targets)
        # the entropy inside of the mask differs from that outside by the logit
        total = F.softplus(logits).sum(dim=2, keepdim=True) - places.inner(logits)
        return total * (self.weight / max(1, logits.shape[2]))
