"""From published weights, or a file, to a folder that detcore works with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from detcore.checkpoint import load, save
from detcore.errors import CheckpointError
from detcore.interfaces import Detector
from detcore.structures import ImageDetections
from detcore_torchvision.bridge import Imported, import_source
from detcore_torchvision.skeletons import skeleton_of
from detcore_torchvision.sources import Source, source_of

MODEL, REPORT = "model", "report.json"
#: Short and long edge of the images of the self-check, in pixels: little, since it runs on the CPU.
_EDGES = (256, 320)
_SIDES = ((240, 320), (200, 160))
_PROPOSALS = 100
#: Part of torchvision's detections that has to be found again: the last of nearly tied ones may be others.
_FOUND = 0.95


def import_files(
    source: str, out: Path, *, categories: Sequence[str] | None = None, keep_unused: bool = False
) -> Iterator[str]:
    """Imports weights into a folder, and checks the result against torchvision's own model.

    The folder gets ``model/`` (configuration, weights, class map) and ``report.json`` (what became of every
    weight).

    Args:
        source: The name of published weights, a model's builder, an address, or a file.
        out: The folder.
        categories: Names by torchvision's label, the background's first.
        keep_unused: Whether labels whose category is "N/A" stay.

    Yields:
        Lines that tell what was done.

    Raises:
        TorchvisionImportError: The weights are of a model that is not translated.
        CheckpointError: The weights cannot be read, or do not fit; or a check fails.
    """
    found = source_of(source, categories=categories)
    imported = import_source(found, keep_unused=keep_unused)
    detector = imported.detector
    save(detector, out / MODEL)
    (out / REPORT).write_text(json.dumps(report_of(imported), indent=1), encoding="utf-8")
    yield f"{out / MODEL}: {type(detector).__name__}, {imported.classes.sizes}"
    keys = imported.keys
    yield (
        f"weights: {len(keys.mapped)} mapped ({len(keys.converted)} of them without the background's rows, or with "
        "these moved), 0 unused, 0 missing"
    )
    yield from (f"note: {note}" for note in imported.notes)
    compared = check_against_torchvision(found, keep_unused=keep_unused)
    yield f"self-check: {compared} of torchvision's detections on noise are detcore's"
    check_saved(detector, out / MODEL)
    yield "self-check: the saved model gives the same detections"


def report_of(imported: Imported) -> dict[str, Any]:
    """What became of every weight, as plain data."""
    return {
        "weights": {"mapped": imported.keys.mapped, "converted": imported.keys.converted},
        "labels": list(imported.classes.labels),
        "notes": [{"path": note.path, "message": note.message} for note in imported.notes],
    }


# -------------------------------------------------------------------------------------------------- checks


def check_against_torchvision(source: Source, *, keep_unused: bool = False) -> str:
    """Compares detections with those of torchvision's own model, on noise.

    Both are without thresholds, and without suppression, which torchvision decides by chance where boxes are
    nearly tied.

    Args:
        source: Where the weights are from.
        keep_unused: As for the import.

    Returns:
        How many of how many were found again.

    Raises:
        CheckpointError: Too few were.
    """
    model = _without_thresholds(source)
    imported = import_source(replace(source, model=model), keep_unused=keep_unused)
    images = _noise()
    with torch.no_grad():
        batch = imported.detector.preprocess(images)
        ours = imported.detector(batch).to_original(batch).unpad()
        theirs = model([image.float() / 255 for image in images])
    labels = {label: i for i, label in enumerate(imported.classes.labels)}
    wanted = found = 0
    for there, here in zip(theirs, ours, strict=True):
        known = torch.tensor([label in labels for label in there["labels"].tolist()], dtype=torch.bool)
        mapped = [labels[label] for label in there["labels"][known].tolist()]
        wanted += len(mapped)
        found += _found_again(there["boxes"][known], there["scores"][known], torch.tensor(mapped), here)
    if found < _FOUND * wanted:
        raise CheckpointError(
            f"{source.title}: only {found} of {wanted} detections of torchvision's model were found again; this "
            "is a fault of the import, please report it"
        )
    return f"{found} of {wanted}"


def _without_thresholds(source: Source) -> Any:
    """Torchvision's model with these weights, for small images, few proposals, and nothing suppressed."""
    weights = dict(source.weights)
    model = skeleton_of(weights, frozen_bn_eps=source.frozen_bn_eps).to_empty(device="cpu").eval()
    model.load_state_dict(weights, strict=False)
    model.transform.min_size, model.transform.max_size = (_EDGES[0],), _EDGES[1]
    last = getattr(model, "roi_heads", model)
    last.score_thresh, last.nms_thresh = 0.0, 1.0
    if hasattr(model, "rpn"):
        model.rpn.nms_thresh = 1.0
        model.rpn._post_nms_top_n = {"training": _PROPOSALS, "testing": _PROPOSALS}
    return model


def _found_again(boxes: Tensor, scores: Tensor, labels: Tensor, here: ImageDetections) -> int:
    """How many detections have one here of the same label and score, in the same place."""
    if not len(boxes) or not len(here):
        return 0
    same = (box_iou(boxes, here.boxes) > 0.99) & (labels[:, None] == here.labels)
    return int((same & ((scores[:, None] - here.scores).abs() < 1e-3)).any(1).sum())


@contextmanager
def _small(detector: Any) -> Iterator[None]:
    """Small images for the time being."""
    part = detector.preprocessor
    before = part.min_size, part.max_size
    part.min_size, part.max_size = _EDGES
    try:
        yield
    finally:
        part.min_size, part.max_size = before


def check_saved(detector: Detector, path: Path) -> None:
    """Checks that the detector saved at ``path`` gives what ``detector`` gives.

    Raises:
        CheckpointError: It does not.
    """
    images, saved = _noise(), load(path)
    with torch.no_grad(), _small(detector), _small(saved):
        here, there = detector(images), saved(images)
    for name in ("boxes", "scores", "labels"):
        if not torch.equal(getattr(here, name), getattr(there, name)):
            raise CheckpointError(f"{path}: the saved model gives other {name} than the imported one")


def _noise() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    coarse = [torch.rand((1, 3, h // 20, w // 20), generator=generator) for h, w in _SIDES]
    smooth = [nn.functional.interpolate(c, side)[0] for c, side in zip(coarse, _SIDES, strict=True)]
    return [(image * 255).to(torch.uint8) for image in smooth]
