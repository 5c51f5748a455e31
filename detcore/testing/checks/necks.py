"""Checks of necks."""

from __future__ import annotations

from typing import Any

import torch

from detcore.interfaces import Neck
from detcore.testing.checking import Trial, check, probe
from detcore.testing.data import image_of
from detcore.testing.modules import (
    IMAGE_SIZES,
    check_buffers_stay,
    check_gradients,
    check_pyramid,
    compiled,
    features_for,
    in_features,
    total_of,
)


@probe(Neck)
def pass_once(neck: Neck, trial: Trial) -> Any:
    """The pyramid of two images."""
    with torch.no_grad():
        return neck.eval()(features_for(trial, in_features(neck)))


@check(Neck, cases=IMAGE_SIZES)
def neck_out_features_are_true(trial: Trial) -> None:
    """Number, channels and sizes of its levels are those of ``out_features``, for images of any size."""
    neck = trial.component().eval()
    size = IMAGE_SIZES[trial.case]
    with torch.no_grad():
        check_pyramid(trial, neck, neck(features_for(trial, in_features(neck), size)), size)


@check(Neck)
def neck_features_are_finite(trial: Trial) -> None:
    """Its features are finite, also those of features that are zero."""
    neck = trial.component().eval()
    features = features_for(trial, in_features(neck))
    with torch.no_grad():
        trial.finite(neck(features), "a feature")
        trial.finite(neck(tuple(torch.zeros_like(f) for f in features)), "a feature of zeros")


@check(Neck)
def neck_parameters_get_gradients(trial: Trial) -> None:
    """In training mode every trainable parameter gets a finite gradient from its features."""
    neck = trial.component().train()
    features = features_for(trial, in_features(neck))
    check_gradients(trial, neck, lambda: total_of(neck(features)))


@check(Neck, compares=True)
def neck_images_are_independent(trial: Trial) -> None:
    """In evaluation mode an image's features are the same alone and in a batch."""
    neck = trial.component().eval()
    features = features_for(trial, in_features(neck))
    with torch.no_grad():
        both, alone = neck(features), neck(image_of(features, 1))
    trial.same(image_of(both, 1), alone, "the second image's features in the batch", atol=1e-3, rtol=1e-3)


@check(Neck)
def neck_evaluation_changes_nothing(trial: Trial) -> None:
    """In evaluation mode its state stays as it is."""
    neck = trial.component()
    check_buffers_stay(trial, neck, lambda: neck(features_for(trial, in_features(neck))))


@check(Neck)
def neck_takes_autocast(trial: Trial) -> None:
    """Under autocast to bfloat16 features and gradients are finite."""
    neck = trial.component().train()
    features = features_for(trial, in_features(neck))

    def run() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            pyramid = neck(features)
        return total_of([feature.float() for feature in pyramid])

    check_gradients(trial, neck, run)


@check(Neck)
def neck_keeps_float64(trial: Trial) -> None:
    """In float64 its features are float64."""
    neck = trial.component().double().eval()
    with torch.no_grad():
        pyramid = neck(tuple(f.double() for f in features_for(trial, in_features(neck))))
    types = [feature.dtype for feature in pyramid]
    trial.require(set(types) == {torch.float64}, f"they are {types}")


@check(Neck)
def neck_leaves_its_arguments(trial: Trial) -> None:
    """It does not write to the features that it is given."""
    neck = trial.component().eval()
    features = features_for(trial, in_features(neck))
    with trial.unchanged("a feature", features), torch.no_grad():
        neck(features)


@check(Neck, slow=True, compares=True)
def neck_compiles(trial: Trial) -> None:
    """``torch.compile(fullgraph=True)`` takes it and gives the same."""
    neck = trial.component().eval()
    features = features_for(trial, in_features(neck))
    with torch.no_grad():
        wanted = neck(features)
        got = compiled(neck)(features)
    trial.same(got, wanted, "the compiled features", rtol=1e-3, atol=1e-3)
