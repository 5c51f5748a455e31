"""Checks of extractors of region features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detcore.interfaces import RoIExtractor
from detcore.testing.checking import Trial, check, probe
from detcore.testing.modules import HEAD_SIZE, features_for, in_features, total_of


def _regions(trial: Trial, rows: int = 9) -> tuple[Tensor, Tensor]:
    """Boxes [P, 4] of all sizes, some beyond the image, and their images [P]."""
    generator = trial.generator()
    corner = torch.rand(rows, 2, generator=generator) * 60
    extent = torch.rand(rows, 2, generator=generator) ** 3 * 90 + 1
    trial.note(f"{rows} regions, seed={trial.seed}")
    return torch.cat((corner, corner + extent), 1), torch.arange(rows) % 2


@probe(RoIExtractor)
def extract_once(extractor: Any, trial: Trial) -> Any:
    """Features of ordinary regions."""
    return extractor(features_for(trial, in_features(extractor)), *_regions(trial))


@check(RoIExtractor, cases=("usual", "no_extent", "outside", "no_regions"))
def roi_extractor_result_is_well_formed(trial: Trial) -> None:
    """It gives finite [P, out_channels, *output_size], for boxes without extent or beyond the image too."""
    extractor = trial.component().eval()
    boxes, image = _regions(trial, 0 if trial.case == "no_regions" else 9)
    if trial.case == "no_extent":
        boxes = torch.cat((boxes[:, :2], boxes[:, :2]), 1)
    elif trial.case == "outside":
        boxes = boxes + 500
    features = extractor(features_for(trial, in_features(extractor)), boxes, image)
    shape = (len(boxes), extractor.out_channels, *extractor.output_size)
    trial.require(features.shape == shape, f"it has shape {list(features.shape)}, not {list(shape)}")
    trial.finite(features, "a feature")


@check(RoIExtractor, cases=("usual", "no_regions"))
def roi_extractor_is_connected(trial: Trial) -> None:
    """Its result is connected to the pyramid, without regions too, with finite gradients."""
    extractor = trial.component().train()
    features = features_for(trial, in_features(extractor))
    features = tuple(feature.requires_grad_() for feature in features)
    boxes, image = _regions(trial, 0 if trial.case == "no_regions" else 9)
    result = extractor(features, boxes, image)
    trial.require(result.requires_grad, "it is not connected")
    gradients = torch.autograd.grad(total_of(result), features, allow_unused=True)
    present = [gradient for gradient in gradients if gradient is not None]
    trial.require(len(present) > 0, "no level gets a gradient")
    trial.finite(present, "a gradient")


@check(RoIExtractor, compares=True)
def roi_extractor_regions_are_independent(trial: Trial) -> None:
    """A region's features do not depend on the other regions, nor on its place among them."""
    extractor = trial.component().eval()
    features = features_for(trial, in_features(extractor))
    boxes, image = _regions(trial)
    every = extractor(features, boxes, image)
    order = torch.randperm(len(boxes), generator=trial.generator())[:5]
    some = extractor(features, boxes[order], image[order])
    trial.same(some, every[order], "five of the regions in another order", rtol=1e-3, atol=1e-4)


@check(RoIExtractor, compares=True)
def roi_extractor_images_are_independent(trial: Trial) -> None:
    """A region's features depend on its own image only."""
    extractor = trial.component().eval()
    features = features_for(trial, in_features(extractor))
    boxes, _ = _regions(trial)
    second = torch.ones(len(boxes), dtype=torch.int64)
    wanted = extractor(features, boxes, second)
    changed = tuple(torch.cat((feature[:1] + 10, feature[1:])) for feature in features)
    trial.same(extractor(changed, boxes, second), wanted, "with another first image", rtol=1e-3, atol=1e-4)


@check(RoIExtractor)
def roi_extractor_looks_at_the_box(trial: Trial) -> None:
    """What lies in a box decides its features: a bright box gives more than a dark one."""
    extractor = trial.component().eval()
    specs = in_features(extractor)
    shapes = [(1, f.channels, -(-HEAD_SIZE[0] // f.stride), -(-HEAD_SIZE[1] // f.stride)) for f in specs]
    features = [torch.zeros(shape) for shape in shapes]
    for feature in features:
        feature[..., feature.shape[-1] // 2 :] = 1
    height, width = HEAD_SIZE
    half = width / 2
    boxes = torch.tensor([[2.0, 2, half - 34, height - 2], [half + 34, 2, width - 2, height - 2]])
    dark, bright = extractor(tuple(features), boxes[:, :4].clamp(min=0), torch.zeros(2, dtype=torch.int64))
    if any(True for _ in extractor.parameters()):
        trial.skip("it has weights")
    trial.require(bool(bright.mean() > dark.mean()), f"{bright.mean():.3f} and {dark.mean():.3f}")
