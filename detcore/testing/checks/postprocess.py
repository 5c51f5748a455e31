"""Checks of post-processing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detcore.interfaces import Postprocess
from detcore.interfaces.postprocess import BoxDecoder
from detcore.structures import Detections, ImageBatch
from detcore.testing.checking import Trial, check, probe
from detcore.testing.data import image_of
from detcore.testing.detections import check_detections, check_same_detections
from detcore.testing.modules import images_of
from detcore.testing.subject import NUM_CLASSES

PRIORS = 80
LEVELS = (48, 24, 8)
CASES = ("usual", "none", "one", "all", "ties", "no_extent", "no_priors")


def _scene(trial: Trial, case: str = "usual", *, smaller: bool = True) -> tuple[Tensor, Tensor, ImageBatch]:
    """Scores [2, N, K], boxes [2, N, 4] inside of the images, and the images."""
    generator = trial.generator()
    batch = images_of(smaller=smaller)
    count = 0 if case == "no_priors" else PRIORS
    limit = batch.sizes.flip(-1)[:, None].float()
    corners = torch.rand(2, count, 2, 2, generator=generator).sort(2).values * limit[:, :, None]
    boxes = corners.flatten(2)
    scores = torch.rand(2, count, NUM_CLASSES, generator=generator) ** 2
    if case == "none":
        scores = torch.zeros_like(scores)
    elif case == "one":
        keep = torch.zeros_like(scores)
        keep[:, 7, 1] = 0.9
        scores = keep
    elif case == "all":
        scores = torch.ones_like(scores)
    elif case == "ties":
        scores = (scores * 4).round() / 4
    elif case == "no_extent":
        boxes = torch.cat((boxes[..., :2], boxes[..., :2]), -1)
    trial.note(f"{count} priors, {case}, seed={trial.seed}")
    return scores, boxes, batch


def _decoder(boxes: Tensor) -> BoxDecoder:
    return lambda prior, label: boxes.gather(1, prior[..., None].expand(-1, -1, 4))


def _run(post: Any, scores: Tensor, boxes: Tensor, batch: ImageBatch, **options: Any) -> Detections:
    found: Detections = post(scores, _decoder(boxes), batch, **options)
    return found


@probe(Postprocess)
def process_once(post: Any, trial: Trial) -> Any:
    """Detections of ordinary candidates."""
    return _run(post, *_scene(trial), levels=LEVELS)


@check(Postprocess, cases=CASES)
def postprocess_result_is_well_formed(trial: Trial) -> None:
    """Detections lie in their image, descend in score, and hold zeros in padded rows."""
    scores, boxes, batch = _scene(trial, trial.case)
    found = _run(trial.component(), scores, boxes, batch)
    check_detections(trial, found, batch, NUM_CLASSES)


@check(Postprocess, cases=("none", "no_priors"))
def postprocess_finds_nothing_in_nothing(trial: Trial) -> None:
    """Without priors nothing is detected, nor is anything with a score above 0 if all are 0."""
    scores, boxes, batch = _scene(trial, trial.case)
    found = _run(trial.component(), scores, boxes, batch)
    trial.require(~found.valid | (found.scores == 0), "something has a score", found.scores)
    if trial.case == "no_priors":
        trial.require(~found.valid, "something is detected", found.valid)


@check(Postprocess)
def postprocess_finds_the_one(trial: Trial) -> None:
    """A single candidate with a high score is detected, with its box and label."""
    scores, boxes, batch = _scene(trial, "one")
    boxes[:, 7] = torch.tensor([10.0, 12.0, 40.0, 44.0])
    found = _run(trial.component(), scores, boxes, batch)
    trial.require(found.valid[:, 0], "nothing is detected")
    trial.same(found.boxes[:, 0], boxes[:, 7], "its box", atol=1e-2)
    trial.same(found.labels[:, 0], torch.ones_like(found.labels[:, 0]), "its label")


@check(Postprocess, compares=True)
def postprocess_images_are_independent(trial: Trial) -> None:
    """An image's detections are the same alone and in a batch."""
    scores, boxes, batch = _scene(trial, smaller=False)
    both = _run(trial.component(), scores, boxes, batch, levels=LEVELS)
    one = image_of(scores, 1), image_of(boxes, 1), image_of(batch, 1)
    alone = _run(trial.component(), *one, levels=LEVELS)
    check_same_detections(trial, image_of(both, 1), alone, "the second image in the batch")


@check(Postprocess)
def postprocess_leaves_invalid_priors_out(trial: Trial) -> None:
    """Priors that are not valid count as if they had no score at all."""
    scores, boxes, batch = _scene(trial)
    valid = torch.rand(2, PRIORS, generator=trial.generator()) < 0.5
    boxes = torch.where(valid[..., None], boxes, torch.tensor([1.0, 1.0, 2.5, 2.5]))
    found = _run(trial.component(), scores, boxes, batch, valid=valid)
    marked = found.valid & ((found.boxes - torch.tensor([1.0, 1.0, 2.5, 2.5])).abs() < 1e-3).all(-1)
    trial.require(~marked, "the box of a prior that is not valid is detected")
    nothing = _run(trial.component(), scores, boxes, batch, valid=torch.zeros_like(valid))
    trial.require(~nothing.valid, "something is detected without a valid prior", nothing.valid)


@check(Postprocess)
def postprocess_factors_lower_scores(trial: Trial) -> None:
    """``factors`` are multiplied to the scores: with 0.5 everywhere, no score is above half of the highest."""
    scores, boxes, batch = _scene(trial)
    factors = torch.full((2, PRIORS), 0.5)
    found = _run(trial.component(), scores, boxes, batch, factors=factors)
    highest = scores.flatten(1).amax(1, keepdim=True) * 0.5
    trial.require(found.scores <= highest + 1e-6, "a score is higher", found.scores)


@check(Postprocess)
def postprocess_carries_no_gradients(trial: Trial) -> None:
    """Detections do not require gradients."""
    scores, boxes, batch = _scene(trial)
    found = _run(trial.component(), scores.requires_grad_(), boxes.requires_grad_(), batch)
    trial.require(not found.scores.requires_grad and not found.boxes.requires_grad, "they do")


@check(Postprocess)
def postprocess_takes_half_precision(trial: Trial) -> None:
    """Scores in bfloat16 give well-formed detections."""
    scores, boxes, batch = _scene(trial)
    found = _run(trial.component(), scores.bfloat16(), boxes, batch)
    check_detections(trial, found, batch, NUM_CLASSES)


@check(Postprocess)
def postprocess_leaves_its_arguments(trial: Trial) -> None:
    """It writes neither to scores nor to boxes."""
    scores, boxes, batch = _scene(trial)
    with trial.unchanged("an argument", scores, boxes, batch):
        _run(trial.component(), scores, boxes, batch, factors=torch.ones(2, PRIORS))
