"""Checks of RoI heads."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from detcore.interfaces import RoIHead
from detcore.structures import Detections, ImageBatch, Losses, Proposals, Targets
from detcore.testing.checking import Trial, check, probe
from detcore.testing.data import image_of, make_proposals, make_targets, pad_targets
from detcore.testing.detections import check_detections, check_same_detections
from detcore.testing.modules import (
    HEAD_SIZE,
    check_gradients,
    enliven,
    features_for,
    images_of,
    in_features,
)
from detcore.testing.subject import given

TARGETS = (
    "none",
    "one",
    "typical",
    "none_in_one",
    "all_ignored",
    "some_ignored",
    "degenerate",
    "tiny",
    "padded",
)


def _head(trial: Trial) -> Any:
    return enliven(trial.component(), trial.seed)


def _targets(trial: Trial, head: Any, case: str) -> Targets:
    classes = given(head, "num_classes")
    made: Targets = trial.make(make_targets, case, size=HEAD_SIZE, num_classes=classes, masks=True)
    return made


def _proposals(trial: Trial, targets: Targets, case: str = "typical") -> Proposals:
    found: Proposals = trial.make(make_proposals, case, targets=targets, size=HEAD_SIZE)
    return found


def _loss(trial: Trial, head: Any, features: Any, proposals: Proposals, targets: Targets) -> Losses:
    trial.seed_everything()  # for samplers
    losses: Losses = head.loss(features, proposals, targets, images_of(HEAD_SIZE, len(targets)))
    return losses


def _predict(head: Any, features: Any, proposals: Proposals, batch: ImageBatch) -> Detections:
    head.eval()
    with torch.no_grad():
        found: Detections = head.predict(features, proposals, batch)
    return found


@probe(RoIHead)
def roi_head_once(head: Any, trial: Trial) -> Any:
    """Losses of an ordinary batch, and detections."""
    enliven(head, trial.seed)
    features = features_for(trial, in_features(head))
    targets = _targets(trial, head, "typical")
    proposals = _proposals(trial, targets)
    losses = _loss(trial, head.train(), features, proposals, targets)
    return dict(losses), _predict(head, features, proposals, images_of())


@check(RoIHead, cases=TARGETS)
def roi_head_parameters_get_gradients(trial: Trial) -> None:
    """Every trainable parameter gets a finite gradient from its loss, whatever the objects, none too."""
    head = _head(trial).train()
    features = features_for(trial, in_features(head))
    targets = _targets(trial, head, trial.case)
    proposals = _proposals(trial, targets)
    check_gradients(trial, head, lambda: _loss(trial, head, features, proposals, targets).total)


@check(RoIHead, cases=("none", "none_in_one", "degenerate", "padded"))
def roi_head_takes_any_proposals(trial: Trial) -> None:
    """Every trainable parameter gets a finite gradient whatever the proposals, with and without objects."""
    head = _head(trial).train()
    features = features_for(trial, in_features(head))
    for case in ("typical", "none"):
        targets = _targets(trial, head, case)
        proposals = _proposals(trial, targets, trial.case)
        run = functools.partial(_loss, trial, head, features, proposals, targets)
        check_gradients(trial, head, lambda run=run: run().total)  # type: ignore[misc]


@check(RoIHead)
def roi_head_losses_are_scalars(trial: Trial) -> None:
    """Its loss is a Losses of scalars."""
    head = _head(trial).train()
    targets = _targets(trial, head, "typical")
    losses = _loss(trial, head, features_for(trial, in_features(head)), _proposals(trial, targets), targets)
    trial.require(isinstance(losses, Losses) and len(losses) > 0, f"it is a {type(losses).__name__}")
    for name, term in losses.items():
        trial.require(term.numel() == 1, f"{name} has shape {list(term.shape)}")


@check(RoIHead, compares=True)
def roi_head_loss_ignores_padding(trial: Trial) -> None:
    """Padded rows of the targets do not change the loss, whatever they hold."""
    head = _head(trial).eval()
    features = features_for(trial, in_features(head))
    targets = _targets(trial, head, "typical")
    proposals = _proposals(trial, targets)
    wanted = _loss(trial, head, features, proposals, targets)
    padded = trial.make(pad_targets, targets, 3, padding="boxes", num_classes=given(head, "num_classes"))
    got = _loss(trial, head, features, proposals, padded)
    trial.same(dict(got), dict(wanted), "with three more padded rows, the loss", rtol=1e-3)


@check(RoIHead, cases=("typical", "none", "none_in_one", "degenerate", "padded"))
def roi_head_detections_are_well_formed(trial: Trial) -> None:
    """Detections lie in their image, descend in score, and hold zeros in padded rows."""
    head = _head(trial)
    proposals = _proposals(trial, _targets(trial, head, "typical"), trial.case)
    batch = images_of()
    found = _predict(head, features_for(trial, in_features(head)), proposals, batch)
    check_detections(trial, found, batch, given(head, "num_classes"))
    nothing = ~proposals.valid.any(1)
    trial.require(~found.valid[nothing], "something is detected in an image without proposals")


@check(RoIHead, compares=True)
def roi_head_detections_are_independent(trial: Trial) -> None:
    """An image's detections are the same alone and in a batch of equal sizes."""
    head = _head(trial)
    features = features_for(trial, in_features(head))
    proposals = _proposals(trial, _targets(trial, head, "typical"))
    batch = images_of(smaller=False)
    both = _predict(head, features, proposals, batch)
    alone = _predict(head, image_of(features, 1), image_of(proposals, 1), image_of(batch, 1))
    check_same_detections(trial, image_of(both, 1), alone, "the second image in the batch")


@check(RoIHead, compares=True)
def roi_head_detections_ignore_padding(trial: Trial) -> None:
    """Proposals that are padding do not change the detections."""
    head = _head(trial)
    features = features_for(trial, in_features(head))
    targets = _targets(trial, head, "typical")
    batch = images_of()
    wanted = _predict(head, features, _proposals(trial, targets), batch)
    got = _predict(head, features, _proposals(trial, targets, "padded"), batch)
    check_same_detections(trial, got, wanted, "with eight proposals of padding")


@check(RoIHead)
def roi_head_takes_autocast(trial: Trial) -> None:
    """Under autocast to bfloat16 every trainable parameter gets a finite gradient."""
    head = _head(trial).train()
    features = features_for(trial, in_features(head))
    targets = _targets(trial, head, "typical")
    proposals = _proposals(trial, targets)

    def run() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return _loss(trial, head, features, proposals, targets).total.float()

    check_gradients(trial, head, run)


@check(RoIHead)
def roi_head_leaves_its_arguments(trial: Trial) -> None:
    """It writes to none of its arguments."""
    head = _head(trial).train()
    features = features_for(trial, in_features(head))
    targets = _targets(trial, head, "padded")
    proposals = _proposals(trial, targets)
    with trial.unchanged("an argument", features, proposals, targets):
        _loss(trial, head, features, proposals, targets)
        _predict(head, features, proposals, images_of())
