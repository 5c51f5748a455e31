"""The gradient harmonising loss of classification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from detcore.interfaces.loss import ClassificationLoss, Reduction
from detcore_losses import focal_terms as terms
from detcore_losses import ghm, lean
from detcore_losses.labels import holds_labels
from detcore_losses.reduction import align_weight, check_reduction, finish, upcast

_OWNER = "GHMC"


class GHMC(ClassificationLoss):
    """Sigmoid cross entropy, each value weighted by how few others have a gradient as large as its own.

    The norm of a value's gradient is |p - t|; norms fall into bins, and a value counts by the inverse of its bin's
    mass. "none" gives the weighted losses, "sum" their sum, and "mean" divides it by the number of values that take
    part: the loss has its own divisor, and ``avg_factor`` is not looked at. Weights count in bins by their size.

    A value depends on all others, so heads call the loss level by level. Labels outside 0..K-1 are background.

    Source: Li et al., Gradient Harmonized Single-stage Detector (arXiv:1811.05181).

    Args:
        bins: Number of bins.
        momentum: Share of the past in the bins' masses, which are then moving averages; 0 for none.
        bias_correction: Whether averages that began at 0 are corrected for it. The reference's are not, so that
            its first losses are 1 / (1 - momentum) times too large.
        reduction: How the values are reduced; see :func:`~detcore_losses.reduce_loss`.
        loss_weight: Factor of the result.
    """

    additive: ClassVar[bool] = False

    def __init__(
        self,
        *,
        bins: Annotated[int, Field(ge=1)] = 10,
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        bias_correction: bool = True,
        reduction: Reduction = "mean",
        loss_weight: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        super().__init__()
        self.bins = bins
        self.momentum = momentum
        self.reduction = reduction
        self.loss_weight = loss_weight
        ghm.register_state(self, bins, momentum, bias_correction)

    def channels(self, num_classes: int) -> int:
        """K logits; background is the absence of all."""
        return num_classes

    def scores(self, logits: Float[Tensor, "*S C"]) -> Float[Tensor, "*S K"]:
        """Probabilities of the K classes, in float32 at least."""
        return upcast(logits).sigmoid()

    def forward(
        self,
        pred: Float[Tensor, "*S C"],
        target: Int[Tensor, "*S"] | Float[Tensor, "*S C"],
        *,
        weight: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
        reduction: Reduction | None = None,
        quality: Float[Tensor, "*S"] | None = None,
    ) -> Tensor:
        """See :class:`~detcore.interfaces.ClassificationLoss`; ``quality`` is not looked at.

        Args:
            pred: Logits.
            target: Labels, or 0 or 1 (or between) for each value.
            weight: Per row or per value.
            avg_factor: Not looked at.
            reduction: Replaces the loss's own.
            quality: Not looked at.

        Returns:
            For reduction "none" [*S, C]; else a scalar.

        Raises:
            ConfigError: Shapes that do not fit, or ``avg_factor`` with reduction "sum".
        """
        reduction = reduction or self.reduction
        check_reduction(avg_factor, reduction, _OWNER)
        if weight is not None:
            weight = align_weight(upcast(weight), pred, _OWNER).detach()
        if holds_labels(pred, target, _OWNER):
            target = torch.where(target < 0, pred.shape[-1], target)
            mass = self._mass_of_labels(pred, target, weight)
            factors, total = ghm.harmonise(self, mass, self.momentum, update=ghm.is_step(self))
            background = _Harmonised(factors)
            loss = lean.label_loss(
                background, background.positive, pred, target, weight, summed=reduction != "none"
            )
        else:
            loss, total = self._of_values(pred, target.detach(), weight)
        divisor = total if reduction == "mean" else None
        return self.loss_weight * finish(loss, pred.numel(), divisor, reduction, _OWNER)

    @torch.no_grad()
    def _mass_of_labels(self, pred: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        rows = pred.detach().reshape(-1, pred.shape[-1])
        if weight is not None:
            weight = weight.expand(*pred.shape[:-1], weight.shape[-1]).reshape(-1, weight.shape[-1])
        mass = torch.zeros(self.bins, dtype=torch.float64, device=pred.device)
        for piece in lean.pieces(rows, labels.reshape(-1), weight):
            norms = piece.x.sigmoid()
            norms = piece.entries.write_(norms, 1 - norms.gather(1, piece.entries.channel))
            mass += ghm.mass_of(ghm.bin_of(norms, self.bins), piece.scale, self.bins)
        return mass

    def _of_values(self, pred: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        pred = upcast(pred)
        scale = torch.ones_like(pred) if weight is None else weight.expand(pred.shape)
        pred = pred.masked_fill(scale == 0, 0)
        target = target.to(pred.dtype)
        index = ghm.bin_of((pred.detach().sigmoid() - target).abs(), self.bins)
        mass = ghm.mass_of(index, scale, self.bins)
        factors, total = ghm.harmonise(self, mass, self.momentum, update=ghm.is_step(self))
        return terms.binary_entropy(pred, target) * scale * factors[index].to(pred.dtype), total


@dataclass(frozen=True)
class _Harmonised:
    """Cross entropy, weighted by bin; see :class:`~detcore_losses.lean.Background`."""

    factors: Float[Tensor, "bins"]

    def value(self, x: Tensor) -> Tensor:
        return F.softplus(x).mul_(self._share(torch.sigmoid(x)))

    def slope(self, x: Tensor) -> Tensor:
        norms = torch.sigmoid(x)
        return norms.mul_(self._share(norms))

    def formula(self, x: Tensor) -> Tensor:
        return F.softplus(x) * self._share(x.detach().sigmoid())

    def positive(self, x: Tensor, quality: Tensor) -> Tensor:
        return F.softplus(-x) * self._share(1 - x.detach().sigmoid())

    def _share(self, norms: Tensor) -> Tensor:
        return self.factors[ghm.bin_of(norms, len(self.factors))].to(norms.dtype)
