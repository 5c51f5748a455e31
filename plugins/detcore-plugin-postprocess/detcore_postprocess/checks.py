"""Conformance checks of mergers."""

from __future__ import annotations

from typing import Any

import torch

from detcore.structures import Detections
from detcore.testing.checking import Check, Trial, check, probe
from detcore.testing.data import image_of
from detcore.testing.detections import check_same_detections
from detcore.testing.subject import NUM_CLASSES
from detcore_postprocess.merger import Merger

ROWS, SIDE = 12, 96.0
CASES = ("usual", "one_view", "nothing", "nothing_in_one", "no_rows", "ties")


def _view(generator: torch.Generator, case: str, rows: int = ROWS) -> Detections:
    corners = (torch.rand(2, rows, 2, 2, generator=generator) * SIDE).sort(2).values
    scores = torch.rand(2, rows, generator=generator)
    if case == "ties":
        scores = (scores * 4).round() / 4
    valid = torch.rand(2, rows, generator=generator) < (0.0 if case == "nothing" else 0.8)
    labels = torch.randint(NUM_CLASSES, (2, rows), generator=generator)
    scores, order = torch.where(valid, scores, 0).sort(dim=1, descending=True, stable=True)
    return Detections(
        boxes=torch.where(valid[..., None], corners.flatten(2), 0).gather(
            1, order[..., None].expand(-1, -1, 4)
        ),
        scores=scores,
        labels=torch.where(valid, labels, 0).gather(1, order),
        valid=valid.gather(1, order),
        image_sizes=torch.tensor([[96, 96], [96, 96]]),
    )


def _views(trial: Trial, case: str = "usual") -> list[Detections]:
    generator = trial.generator()
    trial.note(f"views of two images, {case}, seed={trial.seed}")
    if case == "one_view":
        return [_view(generator, case)]
    if case == "no_rows":
        return [_view(generator, case, 0), _view(generator, case, 0)]
    first = _view(generator, "nothing" if case == "nothing_in_one" else case)
    return [first, _view(generator, case), _view(generator, case, 5)]


@probe(Merger)
def merge_once(merger: Any, trial: Trial) -> Any:
    """The detections of three views as one."""
    return merger(_views(trial), max_per_img=20)


@check(Merger, cases=CASES)
def merger_result_is_well_formed(trial: Trial) -> None:
    """It gives as many rows as asked for, in descending order, within the image, zeros where not valid."""
    views = _views(trial, trial.case)
    found = trial.component()(views, max_per_img=7)
    trial.require(
        found.boxes.shape == (2, 7, 4), f"boxes have shape {list(found.boxes.shape)}, not [2, 7, 4]"
    )
    trial.finite(found.boxes, "boxes")
    trial.require(found.scores[:, :-1] >= found.scores[:, 1:], "scores do not descend", found.scores[:, 1:])
    trial.require(found.valid[:, :-1] | ~found.valid[:, 1:], "padding comes before detections")
    trial.require(found.valid | (found.scores == 0), "a row that is not valid has a score")
    trial.require(found.valid[..., None] | (found.boxes == 0), "a row that is not valid has a box")
    trial.require(
        (found.boxes >= -1e-3) & (found.boxes <= SIDE + 1e-3), "a box leaves the image", found.boxes
    )
    trial.require((found.labels >= 0) & (found.labels < NUM_CLASSES), "a label is none", found.labels)
    if trial.case in ("nothing", "no_rows"):
        trial.require(~found.valid, "something is found in nothing")


@check(Merger)
def merger_finds_what_all_views_find(trial: Trial) -> None:
    """An object that all views see in the same place is there with its box and label, repetitions at most weakly."""
    box = torch.tensor([10.0, 12.0, 40.0, 44.0])
    one = torch.ones(1, 1)
    view = Detections(box[None, None], one * 0.8, one.long(), one.bool())
    found = trial.component()([view, view, view], max_per_img=5)
    trial.require(found.valid[:, 0], "it is not there")
    trial.require(found.scores[:, 1:] < 0.4, "repetitions of it have high scores", found.scores[:, 1:])
    trial.same(found.boxes[0, 0], box, "its box", atol=1e-2)
    trial.require(int(found.labels[0, 0]) == 1, "it has another label")
    trial.require(found.scores[0, 0] <= 0.8 + 1e-5, "its score was raised", found.scores)


@check(Merger)
def merger_padding_changes_nothing(trial: Trial) -> None:
    """Rows that are not valid change nothing, whatever is in them."""
    views = _views(trial)
    odd = [
        view.replace(
            boxes=torch.where(view.valid[..., None], view.boxes, 7.0),
            labels=torch.where(view.valid, view.labels, 1),
        )
        for view in views
    ]
    merger = trial.component()
    trial.same(merger(odd, max_per_img=20), merger(views, max_per_img=20), "with other values in padding")


@check(Merger, compares=True)
def merger_images_are_independent(trial: Trial) -> None:
    """An image's result is the same alone and in a batch."""
    views, merger = _views(trial), trial.component()
    both = image_of(merger(views, max_per_img=20), 1)
    alone = merger([image_of(view, 1) for view in views], max_per_img=20)
    check_same_detections(trial, both, alone, "the second image in the batch")


@check(Merger)
def merger_leaves_its_arguments(trial: Trial) -> None:
    """It writes to none of its arguments, and takes weights."""
    views = _views(trial)
    with trial.unchanged("a view", *views):
        trial.component()(views, max_per_img=20, weights=(1.0, 2.0, 0.5))


@check(Merger)
def merger_refuses_what_makes_no_sense(trial: Trial) -> None:
    """No view at all, or weights that are not one positive number for each, is a ValueError."""
    views, merger = _views(trial), trial.component()
    for wrong, weights in (([], None), (views, (1.0,)), (views, (1.0, 0.0, 1.0))):
        try:
            merger(wrong, max_per_img=5, weights=weights)
        except ValueError:
            continue
        trial.fail(f"it accepts {len(wrong)} views with weights {weights}")


CHECKS: tuple[Check, ...] = (
    merger_result_is_well_formed,
    merger_finds_what_all_views_find,
    merger_padding_changes_nothing,
    merger_images_are_independent,
    merger_leaves_its_arguments,
    merger_refuses_what_makes_no_sense,
)
