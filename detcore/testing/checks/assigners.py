"""Checks of assigners.

``Subject.inputs`` may hold ``priors``: the case of :func:`make_priors` that the assigner works on; ``grid`` else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from detcore.interfaces import Assigner
from detcore.structures import Assignment, ImageBatch, Predictions, Priors, Targets
from detcore.testing.checking import Trial, check, probe
from detcore.testing.compare import tensors
from detcore.testing.data import (
    STRIDES,
    TARGET_CASES,
    image_of,
    make_batch,
    make_predictions,
    make_priors,
    make_targets,
    pad_targets,
    reordered,
)
from detcore.testing.errors import NotApplicableError

#: What ``Assigner.needs`` may name.
NEEDS = frozenset({"levels", "strides", "logits", "boxes", "masks", "batch"})
ORDINARY = tuple(case for case in TARGET_CASES if case != "thousands")
WITH_IGNORED = ("some_ignored", "crowd", "all_ignored", "padded")


@dataclass(frozen=True)
class Scene:
    """What an assigner is called with."""

    priors: Priors
    targets: Targets
    predictions: Predictions | None
    batch: ImageBatch | None

    @classmethod
    def of(
        cls,
        trial: Trial,
        case: str,
        priors: str = "",
        *,
        images: int = 2,
        strides: tuple[int, ...] = STRIDES,
        **options: Any,
    ) -> Scene:
        """A scene with everything that the subject's assigner needs and nothing else.

        Args:
            trial: Notes how it was made.
            case: Of :func:`make_targets`.
            priors: Of :func:`make_priors`; what suits the assigner where empty.
            images: B.
            strides: Of the priors' levels, in pixels.
            **options: For :func:`make_targets`.
        """
        needs = trial.component().needs
        if "masks" in needs:
            trial.skip("it needs predicted masks, which the kit cannot make up")
        targets = trial.make(make_targets, case, batch=images, **options)
        kind = priors or trial.subject.inputs.get("priors", "grid")
        made = trial.make(make_priors, kind, batch=images, strides=strides)
        predictions = None
        if needs & {"logits", "boxes"}:
            predictions = trial.make(make_predictions, made, batch=images)
        batch = trial.make(make_batch, batch=images) if "batch" in needs else None
        return cls(made, targets, predictions, batch)

    def run(self, assigner: Assigner) -> Assignment:
        """The assignment."""
        torch.manual_seed(0)
        return assigner.assign(self.priors, self.targets, self.predictions, self.batch)

    def image(self, index: int) -> Scene:
        """One image of it."""
        return Scene(
            image_of(self.priors, index),
            image_of(self.targets, index),
            image_of(self.predictions, index),
            image_of(self.batch, index),
        )


@probe(Assigner)
def assign_once(assigner: Assigner, trial: Trial) -> Any:
    """The assignment of an ordinary scene."""
    return Scene.of(trial, "mixed").run(assigner)


def _well_formed(trial: Trial, scene: Scene, result: Assignment) -> None:
    shape = (len(scene.targets), len(scene.priors))
    rows = scene.targets.valid.shape[1]
    for name, dtype in (("gt_index", torch.int64), ("state", torch.int8)):
        values = getattr(result, name)
        trial.require(values.shape == shape, f"{name} has shape {list(values.shape)}, not {list(shape)}")
        trial.require(values.dtype == dtype, f"{name} is {values.dtype}, not {dtype}")
    trial.require(result.quality.shape == shape, f"quality has shape {list(result.quality.shape)}")
    trial.require(result.quality.is_floating_point(), f"quality is {result.quality.dtype}")
    trial.require((result.state >= -1) & (result.state <= 1), "state is none of -1, 0, 1", result.state)
    inside = (result.gt_index >= 0) & (result.gt_index < rows)
    trial.require(inside, f"gt_index is not in 0..{rows - 1}", result.gt_index)
    trial.require(result.positive | (result.gt_index == 0), "gt_index is not 0 where not positive")
    trial.finite(result.quality, "quality")
    for name in ("pairs", "ignored_pairs"):
        pairs = getattr(result, name)
        if pairs is not None:
            trial.require((pairs.gt >= 0) & (pairs.gt < rows), f"{name}.gt is no row", pairs.gt)
            known = (pairs.prior >= 0) & (pairs.prior < max(len(scene.priors), 1))
            trial.require(known, f"{name}.prior is no prior", pairs.prior)
    trial.require(not any(t.requires_grad for t in tensors(result)), "the assignment requires gradients")


@check(Assigner, cases=ORDINARY)
def assigner_result_is_well_formed(trial: Trial) -> None:
    """It gives shapes, types and ranges as Assignment says, whatever the objects."""
    scene = Scene.of(trial, trial.case)
    _well_formed(trial, scene, scene.run(trial.component()))


@check(Assigner, cases=("none", "one", "proposals", "duplicates", "degenerate"))
def assigner_takes_any_priors(trial: Trial) -> None:
    """It accepts no prior, a single one, equal ones and those without extent."""
    if "levels" in trial.component().needs and trial.case != "duplicates":
        trial.skip("it needs priors of a grid")
    if "priors" in trial.subject.inputs:
        trial.skip("it needs priors of a kind of its own")
    scene = Scene.of(trial, "mixed", trial.case)
    _well_formed(trial, scene, scene.run(trial.component()))


@check(Assigner, cases=("thousands",))
def assigner_takes_five_thousand_objects(trial: Trial) -> None:
    """It assigns five thousand objects in an image."""
    scene = Scene.of(trial, "thousands", images=1, strides=(16, 32, 64))
    _well_formed(trial, scene, scene.run(trial.component()))


@check(Assigner)
def assigner_needs_are_true(trial: Trial) -> None:
    """``needs`` names only what there is, and it works with no more than that."""
    assigner = trial.component()
    unknown = set(assigner.needs) - NEEDS
    trial.require(not unknown, f"needs names {sorted(unknown)}; there are {sorted(NEEDS)}")
    scene = Scene.of(trial, "mixed")
    if "levels" not in assigner.needs and "priors" not in trial.subject.inputs:
        scene = replace(scene, priors=scene.priors.replace(levels=()))
    scene.run(assigner)


@check(Assigner, cases=WITH_IGNORED)
def assigner_positives_answer_for_objects(trial: Trial) -> None:
    """A positive's ground truth is a valid row that is not to be ignored."""
    scene = Scene.of(trial, trial.case)
    result = scene.run(trial.component())
    matchable = scene.targets.matchable
    answers = matchable.gather(1, result.gt_index)
    trial.require(
        ~result.positive | answers, "a positive answers for padding or a row to ignore", result.gt_index
    )
    if result.pairs is not None:
        matched = ~result.pairs.valid | matchable.gather(1, result.pairs.gt)
        trial.require(matched, "a pair is with padding or a row to ignore", result.pairs.gt)


@check(Assigner, cases=("typical", "mixed", "none", "crowd", "all_ignored"), compares=True)
def assigner_ignores_padding(trial: Trial) -> None:
    """Padded rows of the targets change nothing, whatever they hold."""
    scene = Scene.of(trial, trial.case)
    assigner = trial.component()
    wanted = scene.run(assigner)
    for padding in ("zeros", "boxes"):
        padded = trial.make(pad_targets, scene.targets, 3, padding=padding)
        got = replace(scene, targets=padded).run(trial.component())
        _same_assignment(trial, got, wanted, f"with three more rows of padding ({padding})")


def _same_assignment(trial: Trial, got: Assignment, wanted: Assignment, when: str) -> None:
    for name in ("state", "gt_index", "quality"):
        trial.same(getattr(got, name), getattr(wanted, name), f"{name} {when}")


@check(Assigner, cases=("mixed", "some_ignored", "crowd", "none_in_one"), compares=True)
def assigner_images_are_independent(trial: Trial) -> None:
    """An image's assignment is the same alone and in a batch."""
    scene = Scene.of(trial, trial.case, images=3)
    result = scene.run(trial.component())
    for index in range(3):
        alone = scene.image(index).run(trial.component())
        for name in ("state", "gt_index", "quality"):
            got, wanted = getattr(result, name)[index], getattr(alone, name)[0]
            trial.same(got, wanted, f"{name} of image {index} in the batch")


@check(Assigner, cases=("separate",), compares=True)
def assigner_ignores_order_of_objects(trial: Trial) -> None:
    """Objects that do not touch are assigned alike in any order."""
    scene = Scene.of(trial, trial.case)
    order = [2, 0, 3, 1]
    trial.note(f"reordered(targets, {order})")
    wanted = scene.run(trial.component())
    got = replace(scene, targets=reordered(scene.targets, order)).run(trial.component())
    trial.same(got.state, wanted.state, "state in another order of the objects")
    trial.same(got.quality, wanted.quality, "quality in another order of the objects")
    index = torch.tensor(order)[got.gt_index].masked_fill(~got.positive, 0)
    expected = wanted.gt_index.masked_fill(~wanted.positive, 0)
    trial.same(index, expected, "gt_index in another order of the objects")


@check(Assigner, cases=("none", "all_ignored"))
def assigner_without_objects_has_no_positive(trial: Trial) -> None:
    """Without objects no prior is positive; without any row each is negative, where the method knows negatives."""
    scene = Scene.of(trial, trial.case)
    result = scene.run(trial.component())
    trial.require(~result.positive, "a prior is positive", result.state)
    if trial.case == "none":
        all_ignored = bool((result.state == -1).all())
        trial.require(result.negative | all_ignored, "some priors are negative, others are not", result.state)


@check(Assigner, cases=("mixed", "none"))
def assigner_leaves_invalid_priors_out(trial: Trial) -> None:
    """A prior that is not valid gets state -1."""
    if "priors" in trial.subject.inputs:
        valid = trial.make(make_priors, "invalid").valid
        scene = Scene.of(trial, trial.case)
        scene = replace(scene, priors=scene.priors.replace(valid=valid))
    else:
        scene = Scene.of(trial, trial.case, "invalid")
    result = scene.run(trial.component())
    taken = ~scene.priors.valid & (result.state != -1)  # type: ignore[operator]
    trial.require(~taken, "a prior that is not valid takes part", result.state)


@check(Assigner)
def assigner_finds_what_lies_on_a_prior(trial: Trial) -> None:
    """An object that is exactly a prior's box gets a positive."""
    scene = Scene.of(trial, "one")
    priors = scene.priors
    if priors.boxes.dim() != 2 or not bool((priors.boxes[..., 2:] > priors.boxes[..., :2]).all()):
        trial.skip("its priors are no boxes")
    box = priors.boxes[len(priors.boxes) // 3].clamp(min=0)
    trial.note(f"targets.boxes = {box.tolist()}")
    targets = scene.targets.replace(boxes=box.expand(2, 1, 4).clone())
    predictions = scene.predictions
    if predictions is not None:  # the network has found it
        near = priors.boxes.expand(2, -1, -1)
        predictions = predictions.replace(boxes=near, logits=torch.zeros_like(predictions.logits))
    result = replace(scene, targets=targets, predictions=predictions).run(trial.component())
    trial.require(result.positive.any(1), "no prior is positive")


@check(Assigner)
def assigner_leaves_its_arguments(trial: Trial) -> None:
    """It writes to none of its arguments."""
    scene = Scene.of(trial, "padded")
    names = ("priors", "targets", "predictions", "batch")
    with trial.unchanged("an argument", *(getattr(scene, name) for name in names)):
        scene.run(trial.component())


@check(Assigner)
def assigner_takes_half_precision(trial: Trial) -> None:
    """Predictions in bfloat16 that require gradients give a well-formed assignment."""
    scene = Scene.of(trial, "mixed")
    full = scene.predictions
    if full is None:
        raise NotApplicableError("it does not look at predictions")
    half = full.replace(
        logits=full.logits.bfloat16().requires_grad_(), boxes=full.boxes.clone().requires_grad_()
    )
    scene = replace(scene, predictions=half)
    _well_formed(trial, scene, scene.run(trial.component()))


@check(Assigner)
def assigner_takes_float64(trial: Trial) -> None:
    """Priors and objects in float64 are assigned."""
    scene = Scene.of(trial, "mixed")
    priors = scene.priors.replace(boxes=scene.priors.boxes.double(), strides=scene.priors.strides.double())
    scene = replace(scene, priors=priors, targets=scene.targets.replace(boxes=scene.targets.boxes.double()))
    _well_formed(trial, scene, scene.run(trial.component()))


class _Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the largest number of values that an operation gives."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tensors(result):
            strides = [n for n, step in zip(tensor.shape, tensor.stride(), strict=True) if step]
            self.values = max(self.values, int(torch.tensor(strides).prod()) if strides else 1)
        return result


@check(Assigner, slow=True)
def assigner_memory_is_bounded(trial: Trial) -> None:
    """It never holds a value for every pair of 5000 objects and 13,000 priors at once."""
    assigner = trial.component()
    if "priors" in trial.subject.inputs or assigner.needs & {"logits", "boxes", "masks"}:
        trial.skip("the kit makes no large scene for it")
    size = (768, 832)
    targets = trial.make(make_targets, "thousands", batch=1, size=size)
    priors = trial.make(make_priors, "grid", batch=1, size=size, strides=(8, 16, 32))
    batch = trial.make(make_batch, batch=1, size=size) if "batch" in assigner.needs else None
    pairs = targets.valid.shape[1] * len(priors)
    with _Largest() as largest:
        assigner.assign(priors, targets, None, batch)
    trial.require(largest.values < pairs, f"one tensor holds {largest.values} values, a value for each pair")
