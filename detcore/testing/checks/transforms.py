"""Checks of transforms.

``Subject.inputs`` may hold ``moves_pixels``: False for transforms after which pictures cannot be compared with boxes;
``way_back``: False for those whose result is a picture of its own (turned, or put together from several).
"""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor

from detcore.interfaces import Example, Transform
from detcore.structures import ImageGeometry
from detcore.testing.checking import Trial, check, probe
from detcore.testing.checks.datasets import check_example
from detcore.testing.compare import snapshot
from detcore.testing.examples import make_example

DRAWS = tuple(f"draw {i}" for i in range(6))


def _run(transform: Any, example: Example, seed: int) -> Example:
    torch.manual_seed(seed)
    changed: Example = transform(example)
    return changed


def _draw(trial: Trial) -> int:
    """The seed of one of several draws."""
    return trial.seed * 100 + (int(trial.case.split()[-1]) if trial.case else 0)


@probe(Transform)
def transform_once(transform: Any, trial: Trial) -> Any:
    """A changed example."""
    return dict(_run(transform, make_example(masks=True), trial.seed))


@check(Transform, cases=DRAWS)
def transform_result_is_well_formed(trial: Trial) -> None:
    """The changed example is an Example, with masks and without."""
    transform = trial.component()
    for masks in (False, True):
        example = trial.make(make_example, masks=masks)
        changed = _run(transform, example, _draw(trial))
        check_example(trial, changed, "the changed example")
        trial.require(("masks" in changed) == masks, "masks come or go")


@check(Transform)
def transform_takes_empty_images(trial: Trial) -> None:
    """An image without objects stays one."""
    changed = _run(trial.component(), trial.make(make_example, objects=0, masks=True), trial.seed)
    check_example(trial, changed, "the changed example")
    trial.require(len(changed["boxes"]) == 0, "an object appears")


@check(Transform, cases=DRAWS)
def transform_leaves_its_argument(trial: Trial) -> None:
    """The example that it is given stays as it is."""
    example = trial.make(make_example, masks=True)
    before = snapshot(dict(example))
    _run(trial.component(), example, _draw(trial))
    trial.same(snapshot(dict(example)), before, "the argument", rtol=0, atol=0)


def _extent(mask: Tensor) -> Tensor:
    """The box around what is true."""
    y, x = mask.nonzero().T
    return torch.stack((x.min(), y.min(), x.max() + 1, y.max() + 1)).float()


@check(Transform, cases=DRAWS)
def transform_moves_boxes_with_the_image(trial: Trial) -> None:
    """Boxes still lie around the objects in the picture."""
    if trial.subject.inputs.get("moves_pixels") is False:
        trial.skip("the picture cannot be compared with boxes")
    changed = _run(trial.component(), trial.make(make_example, objects=1), _draw(trial))
    if len(changed["boxes"]) != 1:
        trial.skip("the object has left the picture")
    bright = changed["image"].as_subclass(Tensor).float().mean(0)
    inside = bright > (bright.max() + bright.min()) / 2
    got = changed["boxes"].as_subclass(Tensor)[0].float()
    trial.same(got, _extent(inside), "the box", rtol=0, atol=1.6)


@check(Transform, cases=DRAWS)
def transform_moves_masks_with_boxes(trial: Trial) -> None:
    """Boxes still lie around their masks."""
    changed = _run(trial.component(), trial.make(make_example, masks=True), _draw(trial))
    for box, mask in zip(changed["boxes"].as_subclass(Tensor), changed["masks"], strict=True):
        if bool(mask.any()):
            extent = _extent(mask.as_subclass(Tensor))
            trial.same(box.float(), extent, "a box around its mask", rtol=0, atol=1.6)


@check(Transform, cases=DRAWS)
def transform_knows_the_way_back(trial: Trial) -> None:
    """The geometry leads from the boxes back to those in the file; or it is that of a picture of its own."""
    example = trial.make(make_example, objects=1)
    changed = _run(trial.component(), example, _draw(trial))
    if trial.subject.inputs.get("way_back") is False:
        height, width = changed["image"].shape[-2:]
        own = changed["geometry"] in (ImageGeometry((height, width)), example["geometry"])
        trial.require(own, f"{changed['geometry']} is not that of a picture of {height} x {width} pixels")
        return
    if len(changed["boxes"]) != 1:
        trial.skip("the object has left the picture")
    back = _to_file(changed, changed["boxes"].as_subclass(Tensor).float())
    height, width = changed["image"].shape[-2:]
    seen = _to_file(changed, torch.tensor([[0.0, 0.0, width, height]]))  # what of the file is in the picture
    box = example["boxes"].as_subclass(Tensor).float()
    expected = torch.cat((torch.maximum(box[:, :2], seen[:, :2]), torch.minimum(box[:, 2:], seen[:, 2:])), 1)
    trial.same(back, expected, "the box in the file", rtol=0, atol=1.6)


def _to_file(example: Example, boxes: Tensor) -> Tensor:
    geometry: ImageGeometry = example["geometry"]
    height, width = example["image"].shape[-2:]
    corners = boxes.reshape(-1, 2, 2)
    columns = []
    for axis, length in enumerate((width, height)):
        values = corners[..., axis]
        values = (length - values).flip(-1) if geometry.flip[axis] else values
        columns.append((values + geometry.origin[axis]) / geometry.scale[axis])
    return torch.stack(columns, -1).flatten(1)


@check(Transform, cases=DRAWS, compares=True)
def transform_draws_from_torch(trial: Trial) -> None:
    """Whatever is random comes from torch's global generator, not from Python's."""
    transform = trial.component()
    state = random.getstate()
    results = []
    for seed in (1, 2):
        random.seed(seed)
        results.append(dict(_run(transform, make_example(masks=True), _draw(trial))))
    random.setstate(state)
    trial.same(results[1], results[0], "with another state of Python's random", rtol=0, atol=0)
