"""Checks of preprocessors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detcore.interfaces import Preprocessor
from detcore.structures import ImageGeometry
from detcore.testing.checking import Trial, check, probe

SIZES = ((48, 70), (33, 40))


def _images(trial: Trial) -> list[Tensor]:
    trial.note(f"images of {SIZES}, seed={trial.seed}")
    generator = trial.generator()
    return [torch.randint(256, (3, *size), dtype=torch.uint8, generator=generator) for size in SIZES]


@probe(Preprocessor)
def preprocess_once(preprocessor: Any, trial: Trial) -> Any:
    """The batch of two images."""
    return preprocessor(_images(trial))


@check(Preprocessor)
def preprocessor_batch_is_well_formed(trial: Trial) -> None:
    """It gives finite pixels, and sizes that are those of the images, within their padded sizes."""
    batch = trial.component()(_images(trial))
    trial.require(batch.sizes.tolist() == [list(size) for size in SIZES], f"sizes are {batch.sizes.tolist()}")
    trial.require(batch.padded_sizes >= batch.sizes, "a padded size is smaller than the size")
    whole = torch.tensor(batch.pixels.shape[-2:])
    trial.require(batch.padded_sizes <= whole, "a padded size is larger than the batch")
    trial.require(batch.pixels.shape[:2] == (2, 3), f"pixels have shape {list(batch.pixels.shape)}")
    trial.finite(batch.pixels, "a pixel")


@check(Preprocessor)
def preprocessor_pads_at_the_end(trial: Trial) -> None:
    """An image lies at the top left, whatever the other images, and padding does not depend on it."""
    preprocessor = trial.component()
    images = _images(trial)
    both, alone = preprocessor(images), preprocessor(images[1:])
    height, width = SIZES[1]
    trial.same(both.pixels[1, :, :height, :width], alone.pixels[0, :, :height, :width], "the second image")
    others = preprocessor([images[0], 255 - images[1]])
    mask = torch.ones(both.pixels.shape[-2:], dtype=torch.bool)
    mask[:height, :width] = False
    trial.same(others.pixels[1][:, mask], both.pixels[1][:, mask], "padding with another image")


@check(Preprocessor)
def preprocessor_takes_floats(trial: Trial) -> None:
    """Float images of 0..1 give the same as uint8 images of 0..255."""
    preprocessor = trial.component()
    images = _images(trial)
    got = preprocessor([image.float() / 255 for image in images]).pixels
    trial.same(got, preprocessor(images).pixels, "the pixels", atol=1e-3)


@check(Preprocessor)
def preprocessor_keeps_the_geometry(trial: Trial) -> None:
    """The way back to the files is that which it is given, the images' own size else."""
    preprocessor = trial.component()
    images = _images(trial)
    plain = preprocessor(images)
    trial.require(
        plain.original_sizes.tolist() == [list(s) for s in SIZES], "original_sizes are not the sizes"
    )
    geometry = [ImageGeometry((96, 140), (0.5, 0.5)), ImageGeometry((33, 40), flip=(True, False))]
    batch = preprocessor(images, geometry)
    trial.require(batch.original_sizes.tolist() == [[96, 140], [33, 40]], "original_sizes are lost")
    trial.require(batch.scale.tolist() == [[0.5, 0.5], [1, 1]], "scale is lost")
    trial.require(batch.flip.tolist() == [[False, False], [True, False]], "flip is lost")


@check(Preprocessor)
def preprocessor_leaves_its_arguments(trial: Trial) -> None:
    """It does not write to the images."""
    images = _images(trial)
    with trial.unchanged("an image", images):
        trial.component()(images)
