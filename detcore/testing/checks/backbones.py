"""Checks of backbones.

``Subject.inputs`` may hold ``sizes``: image sizes (h, w) in place of :data:`~detcore.testing.modules.IMAGE_SIZES`.
"""

from __future__ import annotations

from typing import Any

import torch

from detcore.interfaces import Backbone
from detcore.testing.checking import Trial, check, probe
from detcore.testing.data import Size, image_of
from detcore.testing.modules import (
    IMAGE_SIZES,
    check_buffers_stay,
    check_gradients,
    check_pyramid,
    compiled,
    pixels,
    total_of,
)


def _size(trial: Trial, name: str = "square") -> Size:
    sizes: dict[str, Size] = trial.subject.inputs.get("sizes", IMAGE_SIZES)
    return sizes.get(name) or next(iter(sizes.values()))


@probe(Backbone)
def see_once(backbone: Backbone, trial: Trial) -> Any:
    """Features of two images."""
    with torch.no_grad():
        return backbone.eval()(pixels(trial, _size(trial)))


@check(Backbone, cases=IMAGE_SIZES)
def backbone_out_features_are_true(trial: Trial) -> None:
    """Channels and sizes of its features are those of ``out_features``, for images of any size."""
    backbone = trial.component().eval()
    size = _size(trial, trial.case)
    with torch.no_grad():
        check_pyramid(trial, backbone, backbone(pixels(trial, size)), size)


@check(Backbone)
def backbone_features_are_finite(trial: Trial) -> None:
    """Its features are finite, also those of black images."""
    backbone = trial.component().eval()
    with torch.no_grad():
        trial.finite(backbone(pixels(trial, _size(trial))), "a feature")
        trial.finite(backbone(torch.zeros(1, 3, *_size(trial))), "a feature of a black image")


@check(Backbone)
def backbone_parameters_get_gradients(trial: Trial) -> None:
    """In training mode every trainable parameter gets a finite gradient from its features."""
    backbone = trial.component().train()
    images = pixels(trial, _size(trial))
    check_gradients(trial, backbone, lambda: total_of(backbone(images)))


@check(Backbone, compares=True)
def backbone_images_are_independent(trial: Trial) -> None:
    """In evaluation mode an image's features are the same alone and in a batch."""
    backbone = trial.component().eval()
    images = pixels(trial, _size(trial))
    with torch.no_grad():
        both, alone = backbone(images), backbone(images[1:])
    trial.same(image_of(both, 1), alone, "the second image's features in the batch", atol=1e-3, rtol=1e-3)


@check(Backbone)
def backbone_evaluation_changes_nothing(trial: Trial) -> None:
    """In evaluation mode its state stays as it is."""
    backbone = trial.component()
    check_buffers_stay(trial, backbone, lambda: backbone(pixels(trial, _size(trial))))


@check(Backbone)
def backbone_takes_autocast(trial: Trial) -> None:
    """Under autocast to bfloat16 features and gradients are finite."""
    backbone = trial.component().train()
    images = pixels(trial, _size(trial))

    def run() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            features = backbone(images)
        return total_of([feature.float() for feature in features])

    check_gradients(trial, backbone, run)


@check(Backbone)
def backbone_keeps_float64(trial: Trial) -> None:
    """In float64 its features are float64."""
    backbone = trial.component().double().eval()
    with torch.no_grad():
        features = backbone(pixels(trial, _size(trial), 1).double())
    types = [feature.dtype for feature in features]
    trial.require(set(types) == {torch.float64}, f"they are {types}")


@check(Backbone)
def backbone_leaves_its_arguments(trial: Trial) -> None:
    """It does not write to the images."""
    backbone = trial.component().eval()
    images = pixels(trial, _size(trial), 1)
    with trial.unchanged("the images", images), torch.no_grad():
        backbone(images)


@check(Backbone)
def backbone_layers_have_every_parameter(trial: Trial) -> None:
    """Its ``depth_layers()`` have every parameter of it exactly once."""
    backbone = trial.component()
    layers = [name for layer in backbone.depth_layers() for name in layer]
    for name, _ in backbone.named_parameters():
        count = sum(name == prefix or name.startswith(f"{prefix}.") for prefix in layers)
        trial.require(count == 1, f"the parameter {name} is in {count} of them")


@check(Backbone, slow=True, compares=True)
def backbone_compiles(trial: Trial) -> None:
    """``torch.compile(fullgraph=True)`` takes it and gives the same."""
    backbone = trial.component().eval()
    images = pixels(trial, _size(trial))
    with torch.no_grad():
        wanted = backbone(images)
        got = compiled(backbone)(images)
    trial.same(got, wanted, "the compiled features", rtol=1e-3, atol=1e-3)
