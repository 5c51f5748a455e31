"""Checks of whole detectors."""

from __future__ import annotations

from typing import Any

import torch

from detcore.interfaces import Detector
from detcore.structures import ClassMap, Detections, Losses
from detcore.testing.checking import Trial, check, probe
from detcore.testing.data import make_targets
from detcore.testing.detections import check_detections, check_same_detections
from detcore.testing.modules import check_buffers_stay, check_gradients, enliven
from detcore.testing.subject import given

SIZE = (64, 96)
CASES = ("none", "typical", "none_in_one", "all_ignored", "degenerate", "padded")


def _images(trial: Trial, *sizes: tuple[int, int]) -> list[torch.Tensor]:
    """Random uint8 images."""
    trial.note(f"images of {sizes}, seed={trial.seed}")
    generator = trial.generator()
    return [torch.randint(256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]


def _targets(trial: Trial, detector: Any, case: str) -> Any:
    classes = given(detector, "num_classes")
    return trial.make(make_targets, case, size=SIZE, num_classes=classes, masks=True)


def _lively(detector: Any, seed: int) -> Any:
    """Heads with random weights that pass signals on; the backbone keeps what it has."""
    for name, module in detector.named_children():
        if "head" in name:
            enliven(module, seed)
    return detector


def _predict(detector: Any, images: list[torch.Tensor]) -> Detections:
    detector.eval()
    with torch.no_grad():
        found: Detections = detector(images)
    return found


@probe(Detector)
def detect_once(detector: Any, trial: Trial) -> Any:
    """Detections of two images."""
    return _predict(_lively(detector, trial.seed), _images(trial, SIZE, SIZE))


@check(Detector, cases=CASES)
def detector_parameters_get_gradients(trial: Trial) -> None:
    """In training mode every trainable parameter gets a finite gradient, whatever the objects, none too."""
    detector = trial.component().train()
    images, targets = _images(trial, SIZE, SIZE), _targets(trial, detector, trial.case)
    check_gradients(trial, detector, lambda: detector(images, targets).total)


@check(Detector)
def detector_modes(trial: Trial) -> None:
    """It gives Losses in training mode and Detections in evaluation mode."""
    detector = trial.component()
    images = _images(trial, SIZE, SIZE)
    losses = detector.train()(images, _targets(trial, detector, "typical"))
    trial.require(isinstance(losses, Losses), f"in training mode it gives a {type(losses).__name__}")
    found = _predict(detector, images)
    trial.require(isinstance(found, Detections), f"in evaluation mode it gives a {type(found).__name__}")


@check(Detector)
def detector_detections_are_well_formed(trial: Trial) -> None:
    """Detections of images of different sizes lie in their image and descend in score."""
    detector = _lively(trial.component(), trial.seed)
    images = _images(trial, SIZE, (50, 70), (96, 64))
    batch = detector.preprocess(images)
    check_detections(trial, _predict(detector, images), batch, given(detector, "num_classes"))


@check(Detector, compares=True)
def detector_images_are_independent(trial: Trial) -> None:
    """An image's detections are the same alone and in a batch of equal sizes."""
    detector = _lively(trial.component(), trial.seed)
    images = _images(trial, SIZE, SIZE)
    both, alone = _predict(detector, images), _predict(detector, images[1:])
    second = Detections(*(getattr(both, name)[1:] for name in ("boxes", "scores", "labels", "valid")))
    check_same_detections(trial, second, alone, "the second image in the batch")


@check(Detector)
def detector_evaluation_changes_nothing(trial: Trial) -> None:
    """In evaluation mode its state stays as it is."""
    detector = trial.component()
    check_buffers_stay(trial, detector, lambda: _predict(detector, _images(trial, SIZE)))


@check(Detector)
def detector_keeps_its_classes(trial: Trial) -> None:
    """``class_map`` has as many classes as the detector, can be set, and refuses another number."""
    detector = trial.component()
    count = given(detector, "num_classes")
    trial.require(len(detector.class_map) == count, f"it has {len(detector.class_map)} classes, not {count}")
    names = ClassMap(tuple(f"name{i}" for i in range(count)))
    detector.class_map = names
    trial.require(detector.class_map == names, "it does not keep the class map that it is given")
    try:
        detector.class_map = ClassMap(tuple(f"name{i}" for i in range(count + 1)))
    except ValueError:
        return
    trial.fail(f"it accepts {count + 1} classes")
