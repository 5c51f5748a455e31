"""Checks of samplers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from detcore.interfaces import Sampler
from detcore.interfaces.sampler import SamplingPredictions
from detcore.structures import Assignment, Sample
from detcore.testing.checking import Trial, check, probe
from detcore.testing.data import ASSIGNMENT_CASES, image_of, make_assignment


def _predictions(assignment: Assignment, seed: int) -> SamplingPredictions:
    """Losses, logits, boxes and scores of each image, different for each prior."""
    generator = torch.Generator().manual_seed(seed)
    shape = assignment.state.shape
    corner = torch.rand(*shape, 2, generator=generator) * 100
    boxes = torch.cat((corner, corner + 5 + torch.rand(*shape, 2, generator=generator) * 40), -1)
    losses = torch.rand(shape, generator=generator)
    logits = torch.randn(*shape, 3, generator=generator)
    return SamplingPredictions(losses, logits, boxes, logits.softmax(-1)[..., :-1])


def _sample(trial: Trial, sampler: Sampler, assignment: Assignment, image: int | None = None) -> Sample:
    """A sample of the assignment, or of one image of it, from the seed's random state."""
    predict = _predict(trial, assignment)
    if image is not None:
        everything = predict()
        parts: Any = [image_of(tensor, image) for tensor in everything]
        alone = SamplingPredictions(*parts)
        predict = lambda: alone  # noqa: E731
        assignment = image_of(assignment, image)
    trial.seed_everything()
    return sampler.sample(assignment, predict=predict, generator=trial.generator())


def _predict(trial: Trial, assignment: Assignment) -> Callable[[], SamplingPredictions]:
    return lambda: _predictions(assignment, trial.seed)


@probe(Sampler)
def sample_once(sampler: Sampler, trial: Trial) -> Any:
    """A sample of an ordinary assignment."""
    return _sample(trial, sampler, trial.make(make_assignment))


@check(Sampler, cases=ASSIGNMENT_CASES)
def sampler_result_is_well_formed(trial: Trial) -> None:
    """It gives shapes and types as Sample says, with finite weights that are not negative."""
    assignment = trial.make(make_assignment, trial.case)
    sample = _sample(trial, trial.component(), assignment)
    for name in ("positive", "negative"):
        values = getattr(sample, name)
        shape = assignment.state.shape
        trial.require(values.shape == shape, f"{name} has shape {list(values.shape)}, not {list(shape)}")
        trial.require(values.dtype == torch.bool, f"{name} is {values.dtype}, not torch.bool")
    if sample.weight is not None:
        trial.require(sample.weight.shape == assignment.state.shape, "weight has another shape")
        trial.finite(sample.weight, "weight")
        trial.require(sample.weight >= 0, "weight is negative", sample.weight)


@check(Sampler, cases=ASSIGNMENT_CASES)
def sampler_positives_are_positive(trial: Trial) -> None:
    """Every sampled positive is positive in the assignment."""
    assignment = trial.make(make_assignment, trial.case)
    sample = _sample(trial, trial.component(), assignment)
    trial.require(~sample.positive | assignment.positive, "a sampled positive is none", assignment.state)


@check(Sampler, cases=ASSIGNMENT_CASES)
def sampler_negatives_are_negative(trial: Trial) -> None:
    """Every sampled negative is negative in the assignment, never ignored."""
    assignment = trial.make(make_assignment, trial.case)
    sample = _sample(trial, trial.component(), assignment)
    trial.require(~sample.negative | assignment.negative, "a sampled negative is none", assignment.state)


@check(Sampler, cases=("mixed", "no_negatives", "no_positives", "few"))
def sampler_takes_no_more_than_num(trial: Trial) -> None:
    """It takes at most ``num`` priors of an image."""
    sampler = trial.component()
    if sampler.num is None:
        trial.skip("it has no such number")
    assignment = trial.make(make_assignment, trial.case, num_priors=4 * sampler.num + 50)
    sample = _sample(trial, sampler, assignment)
    taken = (sample.positive | sample.negative).sum(1)
    trial.require(taken <= sampler.num, f"it takes more than num={sampler.num}", taken)


@check(Sampler, cases=("mixed", "few", "none_in_one", "no_negatives"))
def sampler_that_does_not_subsample_takes_all(trial: Trial) -> None:
    """With ``subsamples`` false it takes every positive and every negative."""
    sampler = trial.component()
    if sampler.subsamples:
        trial.skip("it subsamples")
    assignment = trial.make(make_assignment, trial.case)
    sample = _sample(trial, sampler, assignment)
    trial.require(torch.equal(sample.positive, assignment.positive), "it leaves positives out")
    trial.require(torch.equal(sample.negative, assignment.negative), "it leaves negatives out")


@check(Sampler, cases=("mixed", "few", "none_in_one"), compares=True)
def sampler_images_are_independent(trial: Trial) -> None:
    """An image's sample, from the same state of the generator, is the same alone and in a batch."""
    sampler = trial.component()
    count = 200 if sampler.num is None else 2 * sampler.num + 100
    assignment = trial.make(make_assignment, trial.case, batch=3, num_priors=count)
    sample = _sample(trial, trial.component(), assignment)
    for index in range(3):
        alone = _sample(trial, trial.component(), assignment, index)
        trial.same(image_of(sample, index), alone, f"the sample of image {index} in the batch")


@check(Sampler)
def sampler_draws_from_its_generator(trial: Trial) -> None:
    """Given a generator, it neither reads nor changes torch's global one."""
    assignment = trial.make(make_assignment, num_priors=400)
    samples = []
    for state in (1, 2):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        samples.append(
            trial.component().sample(
                assignment, predict=_predict(trial, assignment), generator=trial.generator()
            )
        )
        trial.require(torch.equal(torch.get_rng_state(), before), "the global generator has moved")
    trial.same(samples[1], samples[0], "with another state of the global generator, the sample")


@check(Sampler)
def sampler_takes_something(trial: Trial) -> None:
    """Where there are plenty of both, it takes positives or negatives."""
    sampler = trial.component()
    count = 800 if sampler.num is None else 8 * sampler.num + 100
    sample = _sample(trial, sampler, trial.make(make_assignment, num_priors=count))
    trial.require((sample.positive | sample.negative).any(1), "it takes nothing")


@check(Sampler)
def sampler_leaves_its_arguments(trial: Trial) -> None:
    """It does not write to the assignment."""
    assignment = trial.make(make_assignment)
    with trial.unchanged("the assignment", assignment):
        _sample(trial, trial.component(), assignment)
