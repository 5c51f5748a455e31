"""The dice loss of masks as a cost."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from detcore.structures import ImageBatch, Predictions, Targets
from detcore_assigners.costs.mask_places import places_of
from detcore_assigners.costs.match_cost import MatchCost


class DiceCost(MatchCost):
    """1 - (2 |P T| + ``eps``) / (|P| + |T| + ``eps``), of predicted mask P and ground truth's T, |.| their sum.

    Milletari et al., "V-Net" (arXiv:1606.04797); Cheng et al., "MaskFormer" (arXiv:2107.06278).

    Args:
        pred_act: Whether P is the sigmoid of ``predictions.masks``, which are logits; False takes them as they
            are (the reference's default).
        eps: Added above and below.
        naive_dice: Whether the sums below are of values, else of their squares (as in SOLO and K-Net).
        weight: Factor.
    """

    needs = frozenset({"masks"})

    def __init__(
        self,
        *,
        pred_act: bool = True,
        eps: Annotated[float, Field(gt=0)] = 1e-3,
        naive_dice: bool = True,
        weight: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        self.pred_act = pred_act
        self.eps = eps
        self.naive_dice = naive_dice
        self.weight = weight

    def cost(
        self, predictions: Predictions, targets: Targets, batch: ImageBatch | None = None
    ) -> Float[Tensor, "B N M"]:
        """See :class:`~detcore_assigners.costs.match_cost.MatchCost`; reads masks.

        Raises:
            ValueError: Predictions or targets have no masks.
        """
        masks, places = places_of(predictions, targets)
        if self.pred_act:
            masks = masks.sigmoid()
        power = 1 if self.naive_dice else 2
        below = (masks**power).sum(dim=2, keepdim=True) + places.sums(power)[:, None]
        return (1 - (2 * places.inner(masks) + self.eps) / (below + self.eps)) * self.weight
