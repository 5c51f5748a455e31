"""The Kullback-Leibler loss of knowledge distillation."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from detcore.interfaces.loss import Loss, Reduction
from detcore_losses.boxwise import check_shapes
from detcore_losses.reduction import align_weight, reduce_loss, upcast

_OWNER = "KnowledgeDistillationKLDivLoss"


class KnowledgeDistillationKLDivLoss(Loss):
    """The divergence of a student's distribution from a teacher's, both softened by a temperature.

    It is averaged over the C entries of the distribution and multiplied by the square of the temperature, so that
    gradients keep their size.

    Source: Hinton et al., Distilling the Knowledge in a Neural Network (arXiv:1503.02531).

    Args:
        temperature: What logits are divided by.
        reduction: How the rows' losses are reduced; see :func:`~detcore_losses.reduce_loss`.
        loss_weight: Factor of the result.
    """

    def __init__(
        self,
        *,
        temperature: Annotated[float, Field(gt=0)] = 10.0,
        reduction: Reduction = "mean",
        loss_weight: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(
        self,
        pred: Float[Tensor, "*S C"],
        target: Float[Tensor, "*S C"],
        *,
        weight: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
        reduction: Reduction | None = None,
    ) -> Tensor:
        """See :class:`~detcore.interfaces.Loss`; "none" gives [*S].

        Args:
            pred: The student's logits.
            target: The teacher's; no gradient flows back.
            weight: Per row.
            avg_factor: Divisor of the sum in place of the count; for reduction "mean" only.
            reduction: Replaces the loss's own.

        Raises:
            ConfigError: Shapes that do not fit, or ``avg_factor`` with reduction "sum".
        """
        check_shapes(pred, target, _OWNER)
        pred, target = upcast(pred), upcast(target).detach()
        if weight is not None:
            weight = align_weight(upcast(weight), pred[..., 0], _OWNER)
            unused = (weight == 0)[..., None]
            pred, target = pred.masked_fill(unused, 0), target.masked_fill(unused, 0)
        student, teacher = (logits / self.temperature for logits in (pred, target))
        divergence = F.kl_div(
            student.log_softmax(-1), teacher.log_softmax(-1), reduction="none", log_target=True
        )
        value = reduce_loss(
            divergence.mean(-1) * self.temperature**2,
            weight=weight,
            avg_factor=avg_factor,
            reduction=reduction or self.reduction,
            owner=_OWNER,
        )
        return self.loss_weight * value
