"""The formulas of the focal loss, for autograd.

Here f(x) = sigmoid(x)^gamma softplus(x): the term of a class that is not the label is (1 - alpha) f(x), that
of the label alpha f(-x).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from detcore_losses.labels import LabelEntries

#: Smallest probability under a logarithm, where probabilities are given.
EPS = 1e-12


def of_label_logits(
    logits: Float[Tensor, "*S C"], labels: Int[Tensor, "*S"], gamma: float, alpha: float
) -> Float[Tensor, "*S C"]:
    """The loss per logit against labels; 0 in rows with a negative label."""
    entries = LabelEntries.of(labels, logits.shape[-1])
    positive = alpha * _term(-logits.gather(-1, entries.channel), gamma)
    loss = entries.write((1 - alpha) * _term(logits, gamma), positive)
    return torch.where(labels[..., None] >= 0, loss, 0)


def _term(x: Tensor, gamma: float) -> Tensor:
    """f(x); sigmoid(x)^gamma as an exponential, whose gradient is finite for every gamma."""
    return torch.exp(gamma * F.logsigmoid(x)) * F.softplus(x)


def of_label_probabilities(
    p: Float[Tensor, "*S C"], labels: Int[Tensor, "*S"], gamma: float, alpha: float
) -> Float[Tensor, "*S C"]:
    """The loss per probability against labels; 0 in rows with a negative label."""
    entries = LabelEntries.of(labels, p.shape[-1])
    target = entries.write(torch.zeros_like(p), torch.ones_like(entries.channel, dtype=p.dtype))
    return torch.where(labels[..., None] >= 0, of_soft_probabilities(p, target, gamma, alpha), 0)


def of_soft_logits(
    logits: Float[Tensor, "*S C"], target: Float[Tensor, "*S C"], gamma: float, alpha: float
) -> Float[Tensor, "*S C"]:
    """The loss per logit against soft targets."""
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return _factor(logits.sigmoid(), target, gamma, alpha) * entropy


def of_soft_probabilities(
    p: Float[Tensor, "*S C"], target: Float[Tensor, "*S C"], gamma: float, alpha: float
) -> Float[Tensor, "*S C"]:
    """The loss per probability against soft targets."""
    entropy = -(target * p.clamp(min=EPS).log() + (1 - target) * (1 - p).clamp(min=EPS).log())
    return _factor(p, target, gamma, alpha) * entropy


def _factor(p: Tensor, target: Tensor, gamma: float, alpha: float) -> Tensor:
    distance = target + p * (1 - 2 * target)
    if 0 < gamma < 1:  # the slope of the power is infinite at 0
        distance = distance.clamp(min=torch.finfo(p.dtype).tiny)
    return (alpha * target + (1 - alpha) * (1 - target)) * distance.pow(gamma)
