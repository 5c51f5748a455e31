"""Reading predictions: what assigners need of them, and logits where there are only probabilities."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from detcore.structures import Predictions

#: Lowest value of the logarithm of a probability.
LOG_FLOOR = -100.0


def required(predictions: Predictions | None, assigner: str) -> Predictions:
    """The predictions.

    Args:
        predictions: What the owner gave.
        assigner: Who asks, for the message.

    Raises:
        ValueError: There are none.
    """
    if predictions is None:
        raise ValueError(
            f"{assigner} assigns by predictions (logits and decoded boxes), got None; pass predictions=..."
        )
    return predictions


def class_scores(predictions: Predictions, pick: Callable[[Tensor], Tensor]) -> Tensor:
    """Some of the class scores: those that the head gives, else the sigmoid of the logits; float32.

    Args:
        predictions: The predictions.
        pick: Takes those of interest from scores or logits [B, N, C].
    """
    if predictions.scores is None:
        return pick(predictions.logits).float().sigmoid()
    return pick(predictions.scores).float()


def class_logits(predictions: Predictions) -> Float[Tensor, "B N C"]:
    """The logits of ``scores`` where there are any (within -100..100), else ``logits``; float32."""
    if predictions.scores is None:
        return predictions.logits.float()
    scores = predictions.scores.float()
    return scores.log().clamp_(min=LOG_FLOOR).sub_(torch.log1p(-scores).clamp_(min=LOG_FLOOR))
