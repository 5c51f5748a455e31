"""The formulas of the focal losses.

Here f(x) = sigmoid(x)^gamma softplus(x), the cross entropy with background scaled down where it is small.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

#: Smallest probability under a logarithm, where probabilities are given.
EPS = 1e-12


@dataclass(frozen=True)
class ScaledBackground:
    """factor f(x): what a logit costs that should be low; for :func:`~detcore_losses.lean.label_loss`.

    Args:
        gamma: Exponent of the scaling.
        factor: Factor of the whole.
    """

    gamma: float
    factor: float = 1.0

    def value(self, x: Tensor) -> Tensor:
        """The loss of each logit."""
        return torch.sigmoid(x).pow_(self.gamma).mul_(F.softplus(x)).mul_(self.factor)

    def slope(self, x: Tensor) -> Tensor:
        """With s = sigmoid(x): s^gamma (gamma (1 - s) softplus(x) + s)."""
        s = torch.sigmoid(x)
        inner = (1 - s).mul_(F.softplus(x)).mul_(self.gamma).add_(s)
        return s.pow_(self.gamma).mul_(inner).mul_(self.factor)

    def formula(self, x: Tensor) -> Tensor:
        """sigmoid(x)^gamma as an exponential, whose gradient is finite for every gamma."""
        return self.factor * torch.exp(self.gamma * F.logsigmoid(x)) * F.softplus(x)


def binary_entropy(x: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of sigmoids with targets 0..1, per logit."""
    return F.binary_cross_entropy_with_logits(x, target, reduction="none")


def binary_entropy_of_probabilities(p: Tensor, target: Tensor) -> Tensor:
    """Likewise of probabilities, those at the ends included."""
    return -(target * p.clamp(min=EPS).log() + (1 - target) * (1 - p).clamp(min=EPS).log())


def power(distance: Tensor, exponent: float) -> Tensor:
    """A power of values >= 0 with a finite slope; that of one below 1 is infinite at 0."""
    if 0 < exponent < 1:
        distance = distance.clamp(min=torch.finfo(distance.dtype).tiny)
    return distance.pow(exponent)


def of_soft_logits(
    logits: Float[Tensor, "*S"], target: Float[Tensor, "*S"], gamma: float, alpha: float
) -> Float[Tensor, "*S"]:
    """The focal loss per logit against soft targets."""
    return _factor(logits.sigmoid(), target, gamma, alpha) * binary_entropy(logits, target)


def of_soft_probabilities(
    p: Float[Tensor, "*S"], target: Float[Tensor, "*S"], gamma: float, alpha: float
) -> Float[Tensor, "*S"]:
    """The focal loss per probability against soft targets."""
    return _factor(p, target, gamma, alpha) * binary_entropy_of_probabilities(p, target)


def _factor(p: Tensor, target: Tensor, gamma: float, alpha: float) -> Tensor:
    distance = power(target + p * (1 - 2 * target), gamma)
    return (alpha * target + (1 - alpha) * (1 - target)) * distance
