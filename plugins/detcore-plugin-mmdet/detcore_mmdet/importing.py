"""From MMDetection's files to a folder that detcore works with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from detcore.checkpoint import load, save
from detcore.errors import CheckpointError, Problem
from detcore.interfaces import Detector
from detcore_mmdet.bridge import Imported, import_detector
from detcore_mmdet.checkpoints import load_checkpoint
from detcore_mmdet.config_file import read_config
from detcore_mmdet.training.experiment import Experiment, experiment_of, write_experiment
from detcore_mmdet.training.test_time import Augmentation, augmentation_of

MODEL, REPORT, TRAIN = "model", "report.json", "train.yaml"
#: Sides of the images of the self-check, in pixels.
_SIDES = ((160, 224), (96, 128))


def import_files(config: Path, checkpoint: Path | None, out: Path) -> Iterator[str]:
    """Imports a configuration and its weights into a folder, and checks the result.

    The folder gets ``model/`` (configuration, weights, class map), ``report.json`` (what became of every
    weight and option) and, where the configuration tells how to train, ``train.yaml``.

    Args:
        config: MMDetection's ``.py`` file.
        checkpoint: Its weights; random ones where None.
        out: The folder.

    Yields:
        Lines that tell what was done.

    Raises:
        ConfigError: The configuration cannot be read, translated or built.
        CheckpointError: The weights cannot be read, or do not fit; or the written model does not give what
            the imported one gives.
    """
    cfg = read_config(config)
    weights = None if checkpoint is None else load_checkpoint(checkpoint)
    imported = import_detector(cfg, weights)
    save(imported.detector, out / MODEL)
    (out / REPORT).write_text(json.dumps(report_of(imported), indent=1), encoding="utf-8")
    yield f"{out / MODEL}: {type(imported.detector).__name__}, {len(imported.detector.class_map)} classes"
    yield _weights_line(imported)
    yield from _tell("left out or decided", imported.translation.notes)
    check_saved(imported.detector, out / MODEL)
    yield "self-check: the saved model gives the same detections"
    yield from _train_file(experiment_of(cfg, imported.translation), out)
    yield from _test_time(augmentation_of(cfg), out)


def _train_file(experiment: Experiment | None, out: Path) -> Iterator[str]:
    if experiment is None:
        yield f"no {TRAIN}: the configuration tells nothing about training data"
        return
    if experiment.config is not None:
        path = write_experiment(experiment, out / TRAIN)
        yield f"{path}: train with: detcore train {path}"
    else:
        yield f"no {TRAIN}: parts of the training have no counterpart"
    yield from _tell("of the training, not translated", experiment.problems)
    yield from _tell("of the training, left out or decided", experiment.notes)


def _test_time(found: Augmentation | None, out: Path) -> Iterator[str]:
    if found is None:
        return
    if found.config is not None:
        yield f"augmentation of tests: detcore predict IMAGES --model {out / MODEL} --out FOLDER {found.options}"
    yield from _tell("of the augmentation of tests, not translated", found.problems)
    yield from _tell("of the augmentation of tests, decided", found.notes)


def _weights_line(imported: Imported) -> str:
    keys = imported.keys
    if keys is None:
        return "weights: none given, random ones"
    counts = f"{len(keys.mapped)} mapped, {len(keys.skipped)} skipped"
    return f"weights: {counts}, 0 unused, 0 missing, 0 of another shape"


def _tell(title: str, notes: Sequence[Problem]) -> Iterator[str]:
    if notes:
        yield f"{title}:"
        yield from (f"  {note}" for note in notes)


def report_of(imported: Imported) -> dict[str, Any]:
    """What became of every weight and option, as plain data."""
    keys = imported.keys
    weights = None if keys is None else {"mapped": keys.mapped, "skipped": list(keys.skipped)}
    notes = [{"path": note.path, "message": note.message} for note in imported.translation.notes]
    return {"weights": weights, "notes": notes, "pretrained": imported.translation.report.weights}


def check_saved(detector: Detector, path: Path) -> None:
    """Checks that a detector gives finite numbers, and that the one saved at ``path`` gives the same.

    Raises:
        CheckpointError: It does not.
    """
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, *side), generator=generator, dtype=torch.uint8) for side in _SIDES]
    with torch.no_grad():
        here, there = detector(images), load(path)(images)
        for level in detector.features(detector.preprocess(images)):
            if not level.isfinite().all():
                raise CheckpointError(
                    f"{path}: the features of a random image are not finite; check the weights"
                )
    for name in ("boxes", "scores", "labels", "valid"):
        if not torch.equal(getattr(here, name), getattr(there, name)):
            raise CheckpointError(f"{path}: the saved model gives other {name} than the imported one")
