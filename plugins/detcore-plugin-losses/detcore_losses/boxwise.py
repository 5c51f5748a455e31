"""What the losses on boxes share: weights, safe values, and pieces of their formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from detcore import boxes as geometry
from detcore.errors import ConfigError
from detcore.interfaces.loss import Reduction
from detcore_losses.reduction import align_weight, reduce_loss, upcast

#: A loss per box, or per value, of aligned (pred, target).
BoxFormula = Callable[[Tensor, Tensor], Tensor]


class Reducing(Protocol):
    """What a loss says of the number that it returns."""

    reduction: Reduction
    loss_weight: float


def box_loss(
    loss: Reducing,
    formula: BoxFormula,
    pred: Float[Tensor, "*S 4"],
    target: Float[Tensor, "*S 4"],
    weight: Tensor | None,
    avg_factor: Tensor | float | None,
    reduction: Reduction | None,
) -> Tensor:
    """One loss per box, weighted and reduced: all of a box loss but its formula.

    Args:
        loss: Whose loss it is: its reduction, factor, and name for messages.
        formula: The loss of each box [*S], or of its four coordinates [*S, 4].
        pred: Boxes xyxy.
        target: Boxes xyxy.
        weight: Per box, or per coordinate; of the latter the mean counts where the loss is one per box. Boxes
            of weight 0 are replaced before the formula, so that whatever they hold reaches neither value nor
            gradient.
        avg_factor: As in :func:`~detcore_losses.reduction.reduce_loss`.
        reduction: Likewise; that of ``loss`` where None.

    Raises:
        ConfigError: Shapes that do not fit, or ``avg_factor`` with reduction "sum".
    """
    owner = type(loss).__name__
    check_shapes(pred, target, owner)
    if pred.shape[-1] != 4:
        raise ConfigError(f"pred should hold boxes [..., 4], got shape {list(pred.shape)}", owner)
    pred, target = upcast(pred), upcast(target)
    if weight is not None:
        weight = align_weight(upcast(weight), pred, owner)
        used = (weight != 0).any(-1, keepdim=True)
        unit = torch.arange(4, device=pred.device, dtype=pred.dtype).div(
            2, rounding_mode="floor"
        )  # 0, 0, 1, 1
        pred, target = torch.where(used, pred, unit), torch.where(used, target, unit.to(target.dtype))
    each = formula(pred, target)
    if weight is not None and each.dim() < pred.dim():
        weight = weight[..., 0] if weight.shape[-1] == 1 else weight.mean(-1)
    return _reduce(loss, each, weight, avg_factor, reduction)


def code_loss(
    loss: Reducing,
    formula: BoxFormula,
    pred: Float[Tensor, "*S D"],
    target: Float[Tensor, "*S D"],
    weight: Tensor | None,
    avg_factor: Tensor | float | None,
    reduction: Reduction | None,
) -> Tensor:
    """One loss per value, weighted and reduced; otherwise as :func:`box_loss`."""
    owner = type(loss).__name__
    check_shapes(pred, target, owner)
    pred, target = upcast(pred), upcast(target)
    if weight is not None:
        weight = align_weight(upcast(weight), pred, owner)
        pred, target = pred.masked_fill(weight == 0, 0), target.masked_fill(weight == 0, 0)
    return _reduce(loss, formula(pred, target), weight, avg_factor, reduction)


def _reduce(
    loss: Reducing,
    each: Tensor,
    weight: Tensor | None,
    avg_factor: Tensor | float | None,
    reduction: Reduction | None,
) -> Tensor:
    value = reduce_loss(
        each,
        weight=weight,
        avg_factor=avg_factor,
        reduction=reduction or loss.reduction,
        owner=type(loss).__name__,
    )
    return loss.loss_weight * value


def check_shapes(pred: Tensor, target: Tensor, owner: str, name: str = "target") -> None:
    """Refuses targets of another shape, which would broadcast to a loss of every row with every other.

    Raises:
        ConfigError: The shapes differ.
    """
    if pred.shape != target.shape:
        raise ConfigError(
            f"{name} should have the shape of pred {list(pred.shape)}, got {list(target.shape)}", owner
        )


def iou(
    pred: Float[Tensor, "*S 4"], target: Float[Tensor, "*S 4"], eps: float
) -> tuple[Float[Tensor, "*S"], Float[Tensor, "*S"]]:
    """Overlap and union of aligned boxes.

    Args:
        pred: Boxes xyxy.
        target: Boxes xyxy.
        eps: Smallest union, in squared pixels.
    """
    intersection = geometry.aligned_intersection(pred, target)
    union = (geometry.area(pred) + geometry.area(target) - intersection).clamp(min=eps)
    return intersection / union, union


def enclosing_size(pred: Float[Tensor, "*S 4"], target: Float[Tensor, "*S 4"]) -> Float[Tensor, "*S 2"]:
    """Width and height of the smallest box around each pair."""
    size = torch.maximum(pred[..., 2:], target[..., 2:]) - torch.minimum(pred[..., :2], target[..., :2])
    return size.relu()


def distance_iou(
    pred: Float[Tensor, "*S 4"], target: Float[Tensor, "*S 4"], eps: float
) -> tuple[Float[Tensor, "*S"], Float[Tensor, "*S"]]:
    """Overlap, and squared distance of the centres over the squared diagonal of the enclosing box.

    Args:
        pred: Boxes xyxy.
        target: Boxes xyxy.
        eps: Added to the union and to the squared diagonal, in squared pixels.
    """
    intersection = geometry.aligned_intersection(pred, target)
    union = geometry.area(pred) + geometry.area(target) - intersection + eps
    diagonal = enclosing_size(pred, target).square().sum(-1) + eps
    offset = (target[..., :2] + target[..., 2:]) - (pred[..., :2] + pred[..., 2:])
    return intersection / union, offset.square().sum(-1) / 4 / diagonal
