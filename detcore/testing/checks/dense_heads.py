"""Checks of dense heads, and of those that propose.

Heads get random features for the pyramid that they were built for, of images of 64 x 96 pixels, and random weights
that pass signals on: an untrained head detects nothing.

``Subject.inputs`` may hold ``size``: another (h, w) of the images.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detcore.interfaces import DenseHead, ProposalHead
from detcore.structures import Detections, HeadOutput, ImageBatch, Losses, Targets
from detcore.testing.checking import Trial, check, probe
from detcore.testing.data import Size, image_of, make_targets, pad_targets, reordered
from detcore.testing.detections import check_detections, check_proposals, check_same_detections
from detcore.testing.modules import (
    HEAD_SIZE,
    check_gradients,
    compiled,
    enliven,
    features_for,
    images_of,
    in_features,
)
from detcore.testing.subject import given

Features = tuple[Tensor, ...]
CASES = (
    "none", "one", "typical", "none_in_one", "all_ignored", "some_ignored", "crowd", "duplicates", "degenerate",
    "tiny", "whole", "outside", "padded",
)  # fmt: skip


def _size(trial: Trial) -> Size:
    return trial.subject.inputs.get("size", HEAD_SIZE)  # type: ignore[no-any-return]


def _head(trial: Trial) -> Any:
    return enliven(trial.component(), trial.seed)


def _classes(head: Any) -> int:
    return int(given(head, "num_classes", 1))


def _scene(trial: Trial, head: Any, images: int = 2, *, smaller: bool = True) -> tuple[Features, ImageBatch]:
    size = _size(trial)
    return features_for(trial, in_features(head), size, images), images_of(size, images, smaller=smaller)


def _targets(trial: Trial, head: Any, case: str, images: int = 2, *, masks: bool = True) -> Targets:
    made: Targets = trial.make(
        make_targets, case, batch=images, size=_size(trial), num_classes=_classes(head), masks=masks
    )
    return made


def _loss(trial: Trial, head: Any, scene: tuple[Features, ImageBatch], targets: Targets) -> Losses:
    features, batch = scene
    trial.seed_everything()  # for samplers
    losses: Losses = head.loss(head(features, batch, targets), targets, batch)
    return losses


def _predict(head: Any, features: Features, batch: ImageBatch) -> Detections:
    head.eval()
    with torch.no_grad():
        found: Detections = head.predict(head(features, batch), batch)
    return found


@probe(DenseHead)
def head_once(head: Any, trial: Trial) -> Any:
    """Losses of an ordinary batch, and detections."""
    enliven(head, trial.seed)
    scene = _scene(trial, head)
    losses = _loss(trial, head.train(), scene, _targets(trial, head, "typical"))
    return dict(losses), _predict(head, *scene)


@check(DenseHead)
def dense_head_output_is_well_formed(trial: Trial) -> None:
    """Its network gives a HeadOutput whose levels are those of the features."""
    head = _head(trial)
    features, batch = _scene(trial, head)
    output = head(features, batch)
    trial.require(isinstance(output, HeadOutput), f"the output is a {type(output).__name__}")
    shapes = [tuple(feature.shape[-2:]) for feature in features]
    levels = [tuple(level) for level in output.levels]
    trial.require(levels == shapes, f"levels are {levels}, features have {shapes}")
    trial.finite(output, "the output")


@check(DenseHead, cases=CASES)
def dense_head_parameters_get_gradients(trial: Trial) -> None:
    """Every trainable parameter gets a finite gradient from its loss, whatever the objects, none too."""
    head = _head(trial).train()
    scene = _scene(trial, head)
    targets = _targets(trial, head, trial.case)
    check_gradients(trial, head, lambda: _loss(trial, head, scene, targets).total)


@check(DenseHead, cases=("typical", "none", "all_ignored"))
def dense_head_losses_are_scalars(trial: Trial) -> None:
    """Its loss is a Losses of finite scalars."""
    head = _head(trial).train()
    losses = _loss(trial, head, _scene(trial, head), _targets(trial, head, trial.case))
    trial.require(isinstance(losses, Losses), f"it is a {type(losses).__name__}")
    trial.require(len(losses) > 0, "it has no term")
    for name, term in losses.items():
        trial.require(term.numel() == 1, f"{name} has shape {list(term.shape)}")
    trial.finite(dict(losses), "the loss")


@check(DenseHead, slow=True)
def dense_head_takes_five_thousand_objects(trial: Trial) -> None:
    """Its loss of an image with five thousand objects is finite."""
    head = _head(trial).train()
    targets = _targets(trial, head, "thousands", 1, masks=False)
    try:
        losses = _loss(trial, head, _scene(trial, head, 1), targets)
    except Exception:
        if targets.masks is None and _learns_masks(trial, head):
            trial.skip("it needs masks, and five thousand are too many to make up")
        raise
    trial.finite(dict(losses), "the loss")


def _learns_masks(trial: Trial, head: Any) -> bool:
    """Whether it cannot do without masks."""
    try:
        _loss(trial, head, _scene(trial, head), _targets(trial, head, "typical", masks=False))
    except Exception:
        return True
    return False


@check(DenseHead)
def dense_head_learns_from_objects(trial: Trial) -> None:
    """The loss of images with objects depends on where these are."""
    head = _head(trial).train()
    scene = _scene(trial, head)
    one, two = (_loss(trial, head, scene, _targets(trial, head, case)) for case in ("typical", "whole"))
    trial.require(one.total.item() != two.total.item(), "it is the same for other objects")


@check(DenseHead, cases=("typical", "none_in_one", "crowd"), compares=True)
def dense_head_loss_ignores_padding(trial: Trial) -> None:
    """Padded rows of the targets do not change the loss, whatever they hold."""
    head = _head(trial).eval()
    scene = _scene(trial, head)
    targets = _targets(trial, head, trial.case)
    wanted = _loss(trial, head, scene, targets)
    padded = trial.make(pad_targets, targets, 3, padding="boxes", num_classes=_classes(head))
    got = _loss(trial, head, scene, padded)
    trial.same(dict(got), dict(wanted), "with three more padded rows, the loss", rtol=1e-3)


@check(DenseHead, compares=True)
def dense_head_loss_ignores_order_of_objects(trial: Trial) -> None:
    """The loss is the same for objects that do not touch, in any order."""
    head = _head(trial).eval()
    scene = _scene(trial, head)
    targets = _targets(trial, head, "separate")
    order = [2, 0, 3, 1]
    trial.note(f"reordered(targets, {order})")
    wanted = _loss(trial, head, scene, targets)
    got = _loss(trial, head, scene, reordered(targets, order))
    trial.same(dict(got), dict(wanted), "in another order, the loss", rtol=1e-3)


@check(DenseHead, cases=("typical", "crowd"), compares=True)
def dense_head_match_is_independent(trial: Trial) -> None:
    """The priors of an image are matched the same alone and in a batch."""
    head = _head(trial).eval()
    features, batch = _scene(trial, head, smaller=False)
    targets = _targets(trial, head, trial.case)
    with torch.no_grad():
        both = head.match(head(features, batch, targets), targets, batch)
        one, alone = image_of(features, 1), image_of(batch, 1)
        single = head.match(head(one, alone, image_of(targets, 1)), image_of(targets, 1), alone)
    for name in ("state", "gt_index"):
        got, wanted = getattr(both, name)[1:], getattr(single, name)
        differing = float((got != wanted).float().mean()) if got.shape == wanted.shape else 1.0
        # rounding may move a prediction over a threshold, a leak between images moves many
        trial.require(differing < 0.002, f"{name} differs for {differing:.1%} of the second image's priors")


@check(DenseHead, cases=("typical", "crowd"))
def dense_head_positives_answer_for_objects(trial: Trial) -> None:
    """No positive of its matching answers for padding or a row to ignore."""
    head = _head(trial).eval()
    features, batch = _scene(trial, head)
    targets = _targets(trial, head, trial.case)
    with torch.no_grad():
        assignment = head.match(head(features, batch, targets), targets, batch)
    answers = targets.matchable.gather(1, assignment.gt_index)
    trial.require(~assignment.positive | answers, "a positive answers for no object", assignment.gt_index)


@check(DenseHead, compares=True)
def dense_head_takes_an_assignment(trial: Trial) -> None:
    """``loss`` takes an assignment in place of its own, and its own gives the same."""
    head = _head(trial).eval()
    features, batch = _scene(trial, head)
    targets = _targets(trial, head, "typical")
    output = head(features, batch, targets)
    assignment = head.match(output, targets, batch)
    trial.seed_everything()
    wanted = head.loss(output, targets, batch)
    trial.seed_everything()
    got = head.loss(output, targets, batch, assignment)
    trial.same(dict(got), dict(wanted), "the loss with its own assignment")


@check(DenseHead)
def dense_head_detections_are_well_formed(trial: Trial) -> None:
    """Detections lie in their image, descend in score, and hold zeros in padded rows."""
    head = _head(trial)
    features, batch = _scene(trial, head)
    check_detections(trial, _predict(head, features, batch), batch, _classes(head))


@check(DenseHead, compares=True)
def dense_head_detections_are_independent(trial: Trial) -> None:
    """An image's detections are the same alone and in a batch of equal sizes."""
    head = _head(trial)
    features, batch = _scene(trial, head, smaller=False)
    both = _predict(head, features, batch)
    alone = _predict(head, image_of(features, 1), image_of(batch, 1))
    check_same_detections(trial, image_of(both, 1), alone, "the second image in the batch")


@check(DenseHead)
def dense_head_takes_one_class(trial: Trial) -> None:
    """With a single class its loss is finite, and its detections are well-formed."""
    head = enliven(trial.subject.build(num_classes=1), trial.seed)
    scene = _scene(trial, head)
    trial.finite(dict(_loss(trial, head.train(), scene, _targets(trial, head, "typical"))), "the loss")
    check_detections(trial, _predict(head, *scene), scene[1], 1)


@check(DenseHead, cases=("typical", "none"))
def dense_head_takes_autocast(trial: Trial) -> None:
    """Under autocast to bfloat16 every trainable parameter gets a finite gradient."""
    head = _head(trial).train()
    scene = _scene(trial, head)
    targets = _targets(trial, head, trial.case)

    def run() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return _loss(trial, head, scene, targets).total.float()

    check_gradients(trial, head, run)


@check(DenseHead)
def dense_head_leaves_its_arguments(trial: Trial) -> None:
    """It writes neither to the features nor to the targets."""
    head = _head(trial).train()
    features, batch = _scene(trial, head)
    targets = _targets(trial, head, "padded")
    with trial.unchanged("an argument", features, batch, targets):
        _loss(trial, head, (features, batch), targets)
        _predict(head, features, batch)


@check(DenseHead, slow=True, compares=True)
def dense_head_compiles(trial: Trial) -> None:
    """``torch.compile(fullgraph=True)`` takes its network and gives the same."""
    head = _head(trial).eval()
    features, batch = _scene(trial, head)
    with torch.no_grad():
        wanted = head(features, batch)
        got = compiled(head)(features, batch)
    trial.same(got, wanted, "the compiled output", rtol=1e-3, atol=1e-3)


# ---------------------------------------------------------------------------------------------- proposals


@check(ProposalHead, cases=("train", "eval"))
def proposals_are_well_formed(trial: Trial) -> None:
    """Proposals carry no gradients, lie in their image, descend in score, and hold zeros in padded rows."""
    head = _head(trial).train(trial.case == "train")
    features, batch = _scene(trial, head)
    check_proposals(trial, head.propose(head(features, batch), batch), batch)


@check(ProposalHead, compares=True)
def proposals_are_independent(trial: Trial) -> None:
    """An image's proposals are the same alone and in a batch of equal sizes."""
    head = _head(trial).eval()
    features, batch = _scene(trial, head, smaller=False)
    both = head.propose(head(features, batch), batch)
    one = image_of(batch, 1)
    alone = head.propose(head(image_of(features, 1), one), one)
    rows = min(both.scores.shape[1], alone.scores.shape[1])
    for name in ("valid", "scores", "boxes"):
        got, wanted = getattr(both, name)[1:, :rows], getattr(alone, name)[:, :rows]
        trial.same(got, wanted, f"{name} of the second image in the batch", rtol=1e-3, atol=1e-3)
