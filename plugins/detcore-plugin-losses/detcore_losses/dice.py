"""The Dice loss of masks."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from detcore.errors import ConfigError
from detcore.interfaces.loss import Loss, Reduction
from detcore_losses.boxwise import check_shapes
from detcore_losses.reduction import align_weight, reduce_loss, upcast

_OWNER = "DiceLoss"


class DiceLoss(Loss):
    """One minus twice the overlap of two masks over the sum of their sizes: one loss per mask.

    Source: Milletari et al., V-Net (arXiv:1606.04797), whose sizes are sums of squares; ``naive_dice`` takes plain
    sums, as in K-Net and Mask2Former.

    Args:
        activate: Whether ``pred`` holds logits, of which a sigmoid is taken; false for probabilities.
        naive_dice: Whether sizes are sums of the values rather than of their squares.
        eps: Added to each size; with ``naive_dice`` to twice the overlap and to the sum of the sizes.
        reduction: How the masks' losses are reduced; see :func:`~detcore_losses.reduce_loss`.
        loss_weight: Factor of the result.
    """

    def __init__(
        self,
        *,
        activate: bool = True,
        naive_dice: bool = False,
        eps: Annotated[float, Field(gt=0)] = 1e-3,
        reduction: Reduction = "mean",
        loss_weight: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        super().__init__()
        self.activate = activate
        self.naive_dice = naive_dice
        self.eps = eps
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(
        self,
        pred: Float[Tensor, "n *S"],
        target: Float[Tensor, "n *S"],
        *,
        weight: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
        reduction: Reduction | None = None,
    ) -> Tensor:
        """See :class:`~detcore.interfaces.Loss`; "none" gives [n].

        Args:
            pred: Masks of any shape, one per row.
            target: Masks of the same shape, 0 or 1 (or between).
            weight: Per mask.
            avg_factor: Divisor of the sum in place of the count; for reduction "mean" only.
            reduction: Replaces the loss's own.

        Raises:
            ConfigError: Shapes that do not fit, or ``avg_factor`` with reduction "sum".
        """
        check_shapes(pred, target, _OWNER)
        if pred.dim() < 2:
            raise ConfigError(f"pred should hold one mask per row [n, ...], got {list(pred.shape)}", _OWNER)
        masks = upcast(pred).flatten(1)
        wanted = target.flatten(1).to(masks.dtype)
        if weight is not None:
            weight = align_weight(upcast(weight), masks[:, 0], _OWNER)
            unused = (weight == 0)[:, None]
            masks, wanted = masks.masked_fill(unused, 0), wanted.masked_fill(unused, 0)
        value = reduce_loss(
            self._per_mask(masks.sigmoid() if self.activate else masks, wanted),
            weight=weight,
            avg_factor=avg_factor,
            reduction=reduction or self.reduction,
            owner=_OWNER,
        )
        return self.loss_weight * value

    def _per_mask(self, masks: Tensor, wanted: Tensor) -> Tensor:
        overlap = 2 * (masks * wanted).sum(1)
        if self.naive_dice:
            return 1 - (overlap + self.eps) / (masks.sum(1) + wanted.sum(1) + self.eps)
        return 1 - overlap / (masks.square().sum(1) + wanted.square().sum(1) + 2 * self.eps)
