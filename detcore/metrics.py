"""Measures of predictions that are logged beside losses, and never summed with them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


@torch.no_grad()
def accuracy(
    scores: Float[Tensor, "N C"],
    labels: Int[Tensor, "N"],
    topk: int | Sequence[int] = 1,
    threshold: float | None = None,
) -> Tensor | tuple[Tensor, ...]:
    """The share of rows whose label is among the classes with the highest scores.

    Args:
        scores: Scores or logits.
        labels: The true classes.
        topk: How many of the highest scores may be right; several numbers give several shares.
        threshold: A score counts only above it.

    Returns:
        A scalar 0..1, 0 of no rows; a tuple of them where ``topk`` is one.

    Raises:
        ValueError: ``topk`` is below 1 or above the number of classes, or the shapes do not fit.
    """
    wanted = (topk,) if isinstance(topk, int) else tuple(topk)
    if scores.dim() != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(
            f"scores should be [N, C] and labels [N], got {list(scores.shape)} and {list(labels.shape)}"
        )
    if not wanted or min(wanted) < 1 or max(wanted) > scores.shape[1]:
        raise ValueError(f"topk should be 1..{scores.shape[1]}, the number of classes; got {topk}")
    values, classes = scores.topk(max(wanted), dim=1)
    right = classes == labels[:, None]
    if threshold is not None:
        right = right & (values > threshold)
    shares = tuple(right[:, :k].any(1).sum() / max(len(labels), 1) for k in wanted)
    return shares[0] if isinstance(topk, int) else shares
