"""What checks of detections and proposals have in common."""

from __future__ import annotations

import torch
from torch import Tensor

from detcore.structures import Detections, ImageBatch, Proposals
from detcore.testing.checking import Trial


def check_detections(
    trial: Trial, found: Detections, batch: ImageBatch, num_classes: int, *, what: str = "detections"
) -> None:
    """Fails where detections are not what :class:`~detcore.structures.Detections` says."""
    shape = tuple(found.scores.shape)
    trial.require(len(found) == len(batch), f"{what} are of {len(found)} images, not {len(batch)}")
    for name, wanted in (("boxes", (*shape, 4)), ("labels", shape), ("valid", shape)):
        got = tuple(getattr(found, name).shape)
        trial.require(got == wanted, f"{what}: {name} have shape {list(got)}, not {list(wanted)}")
    trial.require(found.valid.dtype == torch.bool, f"{what}: valid is {found.valid.dtype}")
    trial.require(not found.labels.is_floating_point(), f"{what}: labels are {found.labels.dtype}")
    labels = (found.labels >= 0) & (found.labels < num_classes)
    trial.require(labels, f"{what}: a label is not in 0..{num_classes - 1}", found.labels)
    check_rows(trial, found.boxes, found.scores, found.valid, batch, what)
    trial.require(found.valid | (found.labels == 0), f"{what}: a padded row has a label", found.labels)
    if found.masks is not None:
        trial.require(found.masks.shape[:2] == shape, f"{what}: masks have shape {list(found.masks.shape)}")
        trial.require((found.masks >= 0) & (found.masks <= 1), f"{what}: a mask is no probability")


def check_proposals(trial: Trial, found: Proposals, batch: ImageBatch) -> None:
    """Fails where proposals are not what :class:`~detcore.interfaces.ProposalHead` says."""
    trial.require(found.valid.dtype == torch.bool, f"valid is {found.valid.dtype}")
    carries = found.boxes.requires_grad or found.scores.requires_grad
    trial.require(not carries, "proposals carry gradients")
    check_rows(trial, found.boxes, found.scores, found.valid, batch, "proposals")


def check_rows(
    trial: Trial, boxes: Tensor, scores: Tensor, valid: Tensor, batch: ImageBatch, what: str
) -> None:
    """Fails where boxes leave their image or are inverted, scores do not descend, or padding is not zero."""
    trial.finite(boxes, f"{what}: a box")
    trial.finite(scores, f"{what}: a score")
    trial.require(boxes[..., 2:] >= boxes[..., :2], f"{what}: a box has x2 < x1 or y2 < y1", boxes[..., :2])
    limit = batch.sizes.flip(-1).repeat(1, 2)[:, None].to(boxes.dtype)
    inside = (boxes >= 0) & (boxes <= limit + 1e-3)
    trial.require(inside, f"{what}: a box leaves its image", boxes)
    trial.require((scores >= 0) & (scores <= 1), f"{what}: a score is not in 0..1", scores)
    trial.require(scores[:, 1:] <= scores[:, :-1], f"{what}: scores do not descend", scores[:, 1:])
    trial.require(valid | (boxes == 0).all(-1), f"{what}: the box of a padded row is not zero")
    trial.require(valid | (scores == 0), f"{what}: the score of a padded row is not zero", scores)
    trial.require(valid[:, :-1] | ~valid[:, 1:], f"{what}: padding lies between valid rows")


def check_same_detections(trial: Trial, got: Detections, wanted: Detections, what: str) -> None:
    """Fails where two lists of detections differ by more than rounding; rows of padding do not count."""
    rows = min(got.scores.shape[1], wanted.scores.shape[1])
    for side, other in ((got, "the first"), (wanted, "the second")):
        trial.require(~side.valid[:, rows:], f"{what}: {other} has more")
    for name in ("valid", "scores", "labels", "boxes"):
        ours, theirs = getattr(got, name)[:, :rows], getattr(wanted, name)[:, :rows]
        trial.same(ours, theirs, f"{what}: {name}", rtol=1e-3, atol=1e-3)
