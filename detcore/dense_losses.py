"""The classification and box losses of dense heads; used through :mod:`detcore.dense`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from detcore import boxes as geometry
from detcore.errors import ConfigError
from detcore.interfaces import BBoxCoder, BoxLoss, ClassificationLoss
from detcore.structures import Priors
from detcore.targets import DenseTargets, Positives


@torch.no_grad()
def localization_quality(
    loss: ClassificationLoss,
    codes: Float[Tensor, "B N D"],
    priors: Priors,
    chosen: Positives,
    coder: BBoxCoder,
) -> Float[Tensor, "B N"] | None:
    """How well the positives are localised, for :func:`classification_loss`; None for a loss that does not ask.

    Args:
        loss: The classification loss.
        codes: Of all priors.
        priors: All of them.
        chosen: The positives.
        coder: Decodes the codes.

    Returns:
        The IoU of each positive's box with that of its ground truth, without gradient; 0 elsewhere.
    """
    if not loss.uses_quality:
        return None
    boxes = coder.decode(priors.gather(chosen.prior, chosen.image), chosen.gather(codes))
    quality = boxes.new_zeros(codes.shape[:2])
    quality[chosen.image, chosen.prior] = geometry.aligned_overlap(boxes, chosen.boxes).clamp(0, 1)
    return quality


def classification_loss(
    loss: ClassificationLoss,
    logits: Float[Tensor, "B N C"],
    wanted: DenseTargets,
    levels: Sequence[int],
    quality: Float[Tensor, "B N"] | None = None,
) -> Float[Tensor, ""]:
    """The loss over all priors; one that is not additive is summed over the levels.

    Args:
        loss: The loss.
        logits: Of all priors.
        wanted: Their labels and weights, and the divisor.
        levels: Priors per level.
        quality: From :func:`localization_quality`.

    Raises:
        ConfigError: The loss regresses to the quality, and there is none.
    """
    if loss.uses_quality and quality is None:
        raise ConfigError(
            f"{type(loss).__name__} regresses to the localisation quality, which this head does not measure; "
            "use a loss that does not, such as FocalLoss",
            "loss_cls",
        )
    whole = [logits, wanted.labels, wanted.weights, *([] if quality is None else [quality])]
    by_level = zip(*(torch.split(tensor, list(levels), 1) for tensor in whole), strict=True)
    terms = [
        loss(
            logits.flatten(0, 1),
            labels.flatten(),
            weight=weights.flatten(),
            avg_factor=wanted.count,
            **({"quality": extra[0].flatten()} if extra else {}),
        )
        for logits, labels, weights, *extra in ([whole] if loss.additive else by_level)
    ]
    return torch.stack(terms).sum()


def box_loss(
    loss: BoxLoss,
    codes: Float[Tensor, "B N D"],
    priors: Priors,
    chosen: Positives,
    coder: BBoxCoder,
    avg_factor: Tensor | float,
    *,
    on_boxes: bool,
    weight: Float[Tensor, "P"] | None = None,
) -> Float[Tensor, ""]:
    """The loss of the positives' codes or of the boxes that they mean; without any 0, connected to ``codes``.

    One that is not additive is summed over the levels.

    Args:
        loss: The loss.
        codes: Of all priors.
        priors: All of them.
        chosen: The positives.
        coder: Encodes the targets, or decodes the predictions.
        avg_factor: Divisor.
        on_boxes: Whether the loss gets boxes; see :func:`compares_boxes`.
        weight: Of each positive; that of the sample where None.
    """
    own, anchors = chosen.gather(codes), priors.gather(chosen.prior, chosen.image)
    weight = chosen.weight if weight is None else weight
    if on_boxes:
        pred, target = coder.decode(anchors, own), chosen.boxes
    else:
        pred, (target, code_weights) = own, coder.encode(anchors, chosen.boxes)
        if code_weights is not None:
            weight = code_weights if weight is None else code_weights * weight[:, None]
    if loss.additive or len(priors.levels) < 2:
        return loss(pred, target, weight=weight, avg_factor=avg_factor)  # type: ignore[no-any-return]
    ends = torch.tensor([level.count for level in priors.levels], device=chosen.prior.device).cumsum(0)
    level = torch.bucketize(chosen.prior, ends, right=True)
    terms = [
        loss(pred[rows], target[rows], weight=None if weight is None else weight[rows], avg_factor=avg_factor)
        for rows in (level == index for index in range(len(ends)))
    ]
    return torch.stack(terms).sum()
