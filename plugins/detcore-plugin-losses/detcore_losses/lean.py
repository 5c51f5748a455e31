"""Losses on class logits in little memory.

Autograd would keep four tensors of the size of the logits, half a gigabyte for a RetinaNet on two images. Here
logits are worked through in pieces, and the backward pass works anew from them. Against labels, nearly all
entries are background, for which a loss states its slope in closed form; the one entry per row that may be
positive is left to autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from detcore_losses.labels import LabelEntries

#: Logits worked through at a time: within a processor's cache, and for a GPU as many as keep it busy.
CHUNK_CPU, CHUNK_GPU = 1 << 17, 1 << 24

#: The loss of each positive entry from its logit [n, 1] and the quality of its row [n, 1]; for autograd.
Positive = Callable[[Tensor, Tensor], Tensor]
#: A loss per value from predictions and targets of the same shape; for autograd.
Elementwise = Callable[[Tensor, Tensor], Tensor]


class Background(Protocol):
    """The loss of a logit whose class is not the label."""

    def value(self, x: Tensor) -> Tensor:
        """The loss of each logit: a new tensor."""

    def slope(self, x: Tensor) -> Tensor:
        """Its derivative: a new tensor."""

    def formula(self, x: Tensor) -> Tensor:
        """As :meth:`value`, for autograd and the compiler."""


def label_loss(
    background: Background,
    positive: Positive,
    logits: Float[Tensor, "*S C"],
    labels: Int[Tensor, "*S"],
    weight: Tensor | None,
    quality: Float[Tensor, "*S"] | None = None,
    *,
    summed: bool,
) -> Tensor:
    """The weighted loss per logit [*S, C], or its sum, in float32 for logits of half precision.

    Args:
        background: The loss of entries that are not the label.
        positive: The loss of those that are.
        logits: Class logits; rows with weight 0 or a negative label do not matter, whatever they hold.
        labels: 0..C-1, or C for background.
        weight: Broadcasts to ``logits`` with all dimensions there.
        quality: Handed to ``positive``, without gradient; 1 where None.
        summed: Whether to return the sum.
    """
    rows, labels = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    quality = None if quality is None else quality.detach().reshape(-1)
    if weight is not None:
        weight = weight.expand(*logits.shape[:-1], weight.shape[-1]).reshape(-1, weight.shape[-1])
    if may_be_lean(weight):
        loss: Tensor = _LabelLoss.apply(rows, labels, weight, quality, background, positive, summed)
    else:
        piece = _piece(slice(None), rows, labels, weight, quality)
        found = positive(piece.x.gather(1, piece.entries.channel), piece.quality)
        loss = piece.entries.write(background.formula(piece.x), found) * piece.scale
        loss = loss.sum() if summed else loss
    return loss if summed else loss.reshape(logits.shape)


def value_loss(
    formula: Elementwise, pred: Float[Tensor, "*S"], target: Float[Tensor, "*S"], weight: Tensor | None
) -> Float[Tensor, "*S"]:
    """The weighted loss per value, keeping nothing but what it gets.

    Args:
        formula: The loss of each value.
        pred: Predictions; where the weight is 0 they do not matter, whatever they hold.
        target: Targets; get no gradient.
        weight: Broadcasts to ``pred`` with all dimensions there.
    """
    if not may_be_lean(weight):
        return _weighted(formula, pred, target.to(_dtype(pred)), weight)
    loss: Tensor = _ValueLoss.apply(pred, target.detach(), weight, formula)
    return loss


def may_be_lean(weight: Tensor | None) -> bool:
    """The compiler fuses formulas by itself; weights that are learned need autograd."""
    learned = weight is not None and weight.requires_grad and torch.is_grad_enabled()
    return not learned and not torch.compiler.is_compiling()


# --------------------------------------------------------------------------------------------- with labels


class Piece(NamedTuple):
    """Some rows of the logits and what belongs to them.

    Args:
        rows: Which rows.
        x: Their logits, 0 where they do not matter, in float32 at least.
        entries: Where their labels are.
        scale: Their weights [n, 1] or [n, C]; 0 where labels are negative.
        quality: Their quality.
    """

    rows: slice
    x: Float[Tensor, "n C"]
    entries: LabelEntries
    scale: Tensor
    quality: Float[Tensor, "n 1"]


def pieces(
    logits: Float[Tensor, "N C"],
    labels: Int[Tensor, "N"],
    weight: Tensor | None,
    quality: Tensor | None = None,
) -> Iterator[Piece]:
    """The rows, piece by piece."""
    step = _chunk(logits) // max(logits.shape[1], 1)
    for rows in _slices(len(logits), step):
        yield _piece(rows, logits, labels, weight, quality)


def _piece(
    rows: slice, logits: Tensor, labels: Tensor, weight: Tensor | None, quality: Tensor | None
) -> Piece:
    own = labels[rows]
    matters = (own >= 0)[:, None]
    scale = matters.to(_dtype(logits))
    if weight is not None:
        matters = matters & (weight[rows] != 0)
        scale = scale * weight[rows].to(scale.dtype)
    x = logits[rows].to(scale.dtype).masked_fill(~matters, 0)
    quality = torch.ones_like(x[:, :1]) if quality is None else quality[rows, None].to(x.dtype)
    return Piece(rows, x, LabelEntries.of(own, logits.shape[1]), scale, quality)


class _LabelLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None,
        quality: Tensor | None,
        background: Background,
        positive: Positive,
        summed: bool,
    ) -> Tensor:
        ctx.save_for_backward(logits, labels, weight, quality)
        ctx.background, ctx.positive, ctx.summed = background, positive, summed
        loss = None if summed else torch.empty_like(logits, dtype=_dtype(logits))
        sums = []
        for piece in pieces(logits, labels, weight, quality):
            found = positive(piece.x.gather(1, piece.entries.channel), piece.quality)
            values = piece.entries.write_(background.value(piece.x), found).mul_(piece.scale)
            if loss is None:
                sums.append(values.sum())
            else:
                loss[piece.rows] = values
        if loss is not None:
            return loss
        return torch.stack(sums).sum() if sums else logits.new_zeros((), dtype=_dtype(logits))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, labels, weight, quality = ctx.saved_tensors
        result = torch.empty_like(logits)
        for piece in pieces(logits, labels, weight, quality):
            found = _slope(ctx.positive, piece.x.gather(1, piece.entries.channel), piece.quality)
            slopes = piece.entries.write_(ctx.background.slope(piece.x), found).mul_(piece.scale)
            result[piece.rows] = slopes.mul_(grad if ctx.summed else grad[piece.rows])
        return result, *[None] * 6


# ----------------------------------------------------------------------------------- with a target per value


class _ValueLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, pred: Tensor, target: Tensor, weight: Tensor | None, formula: Elementwise
    ) -> Tensor:
        ctx.save_for_backward(pred, target, weight)
        ctx.formula = formula
        loss = torch.empty(pred.shape, dtype=_dtype(pred), device=pred.device)
        for part, own, wanted, scale in _parts(pred, target, weight):
            loss.view(-1)[part] = _weighted(formula, own, wanted, scale)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        pred, target, weight = ctx.saved_tensors
        result, grad = torch.empty(pred.shape, dtype=pred.dtype, device=pred.device), grad.reshape(-1)
        for part, own, wanted, scale in _parts(pred, target, weight):
            slopes = _slope(lambda x, t, scale=scale: _weighted(ctx.formula, x, t, scale), own, wanted)
            result.view(-1)[part] = (slopes * grad[part]).to(result.dtype)
        return result, None, None, None


def _weighted(formula: Elementwise, pred: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    pred = pred.to(_dtype(pred))
    if weight is None:
        return formula(pred, target)
    return formula(pred.masked_fill(weight == 0, 0), target) * weight


def _parts(
    pred: Tensor, target: Tensor, weight: Tensor | None
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor | None]]:
    """Values of predictions, targets and weights, piece by piece."""
    flat, wanted = pred.reshape(-1), target.reshape(-1)
    weights = None if weight is None else weight.expand(pred.shape).reshape(-1)
    for part in _slices(flat.numel(), _chunk(pred)):
        own = None if weights is None else weights[part].to(_dtype(pred))
        yield part, flat[part], wanted[part].to(_dtype(pred)), own


# --------------------------------------------------------------------------------------------------- shared


def _slope(formula: Callable[..., Tensor], x: Tensor, *others: Tensor) -> Tensor:
    """The derivative of each value of ``formula`` by the value of ``x`` in its place."""
    with torch.enable_grad():
        leaf = x.detach().to(_dtype(x)).requires_grad_()
        (slope,) = torch.autograd.grad(formula(leaf, *others).sum(), leaf)
    return slope


def _slices(count: int, step: int) -> Iterator[slice]:
    step = max(1, step)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _chunk(values: Tensor) -> int:
    return CHUNK_CPU if values.device.type == "cpu" else CHUNK_GPU


def _dtype(values: Tensor) -> torch.dtype:
    return torch.float32 if values.dtype in (torch.float16, torch.bfloat16) else values.dtype
