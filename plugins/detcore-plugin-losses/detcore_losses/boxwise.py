"""What the losses on boxes share: weights, safe values, and pieces of their formulas."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from detcore import boxes as geometry
from detcore.errors import ConfigError
from detcore.interfaces.loss import Reduction
from detcore_losses.reduction import align_weight, reduce_loss, upcast

#: A loss per box from aligned boxes (pred, target).
BoxFormula = Callable[[Tensor, Tensor], Tensor]


def box_loss(
    formula: BoxFormula,
    pred: Float[Tensor, "*S 4"],
    target: Float[Tensor, "*S 4"],
    *,
    weight: Tensor | None,
    avg_factor: Tensor | float | None,
    reduction: Reduction,
    owner: str,
) -> Tensor:
    """One loss per box, weighted and reduced.

    Args:
        formula: The loss of each box.
        pred: Boxes xyxy.
        target: Boxes xyxy.
        weight: Per box, or per coordinate, of which the mean counts. Boxes of weight 0 are replaced before
            the formula, so that whatever they hold reaches neither value nor gradient.
        avg_factor: As in :func:`~detcore_losses.reduction.reduce_loss`.
        reduction: Likewise.
        owner: The loss's name, for messages.

    Raises:
        ConfigError: Shapes that do not fit, or ``avg_factor`` with reduction "sum".
    """
    check_shapes(pred, target, owner)
    if pred.shape[-1] != 4:
        raise ConfigError(f"pred should hold boxes [..., 4], got shape {list(pred.shape)}", owner)
    pred, target = upcast(pred), upcast(target)
    if weight is not None:
        weight = _per_box(upcast(weight), pred, owner)
        used = (weight != 0)[..., None]
        unit = torch.arange(4, device=pred.device, dtype=pred.dtype).div(
            2, rounding_mode="floor"
        )  # 0, 0, 1, 1
        pred, target = torch.where(used, pred, unit), torch.where(used, target, unit.to(target.dtype))
    return reduce_loss(
        formula(pred, target), weight=weight, avg_factor=avg_factor, reduction=reduction, owner=owner
    )


def code_loss(
    formula: BoxFormula,
    pred: Float[Tensor, "*S D"],
    target: Float[Tensor, "*S D"],
    *,
    weight: Tensor | None,
    avg_factor: Tensor | float | None,
    reduction: Reduction,
    owner: str,
) -> Tensor:
    """One loss per value, weighted and reduced; otherwise as :func:`box_loss`."""
    check_shapes(pred, target, owner)
    pred, target = upcast(pred), upcast(target)
    if weight is not None:
        weight = align_weight(upcast(weight), pred, owner)
        pred, target = pred.masked_fill(weight == 0, 0), target.masked_fill(weight == 0, 0)
    return reduce_loss(
        formula(pred, target), weight=weight, avg_factor=avg_factor, reduction=reduction, owner=owner
    )


def check_shapes(pred: Tensor, target: Tensor, owner: str) -> None:
    """Refuses targets of another shape, which would broadcast to a loss of every row with every other.

    Raises:
        ConfigError: The shapes differ.
    """
    if pred.shape != target.shape:
        raise ConfigError(
            f"target should have the shape of pred {list(pred.shape)}, got {list(target.shape)}", owner
        )


def _per_box(weight: Tensor, pred: Tensor, owner: str) -> Tensor:
    weight = align_weight(weight, pred, owner)
    return weight[..., 0] if weight.shape[-1] == 1 else weight.mean(-1)


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
    return size.clamp(min=0)


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
