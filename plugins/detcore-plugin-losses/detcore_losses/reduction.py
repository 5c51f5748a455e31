"""From a loss per value to the number that is returned: weights, then one of three reductions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from detcore.errors import ConfigError
from detcore.interfaces.loss import Reduction

#: Added to an ``avg_factor``, which may be 0 (no positives); the reference's value.
EPS = torch.finfo(torch.float32).eps


def reduce_loss(
    loss: Float[Tensor, "*S"],
    *,
    weight: Tensor | None = None,
    avg_factor: Tensor | float | None = None,
    reduction: Reduction = "mean",
    owner: str = "reduce_loss",
) -> Tensor:
    """Weights a loss and reduces it.

    | reduction | without ``avg_factor``          | with ``avg_factor``              |
    |-----------|---------------------------------|----------------------------------|
    | "none"    | ``loss * weight``               | the same                         |
    | "mean"    | its sum / number of values      | its sum / (``avg_factor`` + eps) |
    | "sum"     | its sum                         | an error                         |

    The number of values counts those of weight 0 as well; of no values, "mean" and "sum" are 0.

    Args:
        loss: A loss per value.
        weight: Weight per value, or per leading index of ``loss`` (a row).
        avg_factor: Divisor of the sum in place of the count.
        reduction: "none" keeps the shape of ``loss``, whatever the weights.
        owner: Who asks, for messages.

    Raises:
        ConfigError: ``avg_factor`` with reduction "sum", or a weight of another shape. It is a ValueError.
    """
    if weight is not None:
        loss = loss * align_weight(weight, loss, owner)
    return finish(loss, loss.numel(), avg_factor, reduction, owner)


def finish(
    loss: Float[Tensor, "*S"],
    count: int,
    avg_factor: Tensor | float | None,
    reduction: Reduction,
    owner: str = "reduce_loss",
) -> Tensor:
    """:func:`reduce_loss` of losses that are weighted already, and may be summed.

    Args:
        loss: The weighted losses; where ``reduction`` is not "none", their sum is enough.
        count: The number of values.
        avg_factor: Divisor in place of ``count``.
        reduction: "none" returns ``loss``.
        owner: Who asks, for messages.

    Raises:
        ConfigError: ``avg_factor`` with reduction "sum".
    """
    check_reduction(avg_factor, reduction, owner)
    if reduction == "none":
        return loss
    total = loss.sum()
    if reduction == "sum":
        return total
    if avg_factor is None:
        return total / max(count, 1)
    return total / (avg_factor + EPS)


def check_reduction(avg_factor: Tensor | float | None, reduction: Reduction, owner: str) -> None:
    """Refuses what has no meaning.

    Raises:
        ConfigError: ``avg_factor`` with reduction "sum", or an unknown reduction.
    """
    if reduction not in ("none", "mean", "sum"):
        raise ConfigError(f"reduction should be 'none', 'mean' or 'sum', got {reduction!r}", owner)
    if reduction == "sum" and avg_factor is not None:
        raise ConfigError(
            "avg_factor replaces the divisor of a mean, so it has no meaning with reduction='sum'; "
            "leave it out, or use reduction='mean'",
            owner,
        )


def align_weight(weight: Tensor, loss: Tensor, owner: str) -> Tensor:
    """``weight`` with trailing dimensions of size 1 added, so that it broadcasts over the rows of ``loss``.

    Raises:
        ConfigError: The shapes do not fit; nothing is broadcast over leading dimensions.
    """
    shape = (*weight.shape, *[1] * (loss.dim() - weight.dim()))
    rows = min(weight.dim(), max(loss.dim() - 1, 1))
    fits = len(shape) == loss.dim() and shape[:rows] == tuple(loss.shape[:rows])
    if not fits or any(size not in (1, count) for size, count in zip(shape, loss.shape, strict=True)):
        raise ConfigError(
            f"weight should have one entry per row or per value of the loss {list(loss.shape)}, "
            f"got {list(weight.shape)}",
            owner,
        )
    return weight.reshape(shape)


def upcast(values: Tensor) -> Tensor:
    """Half precision as float32, everything else as it is: no logarithms and sums in 16 bits."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
