"""The inputs of the reference's assigners, as recorded, in structures of detcore."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detcore.structures import ApproxPriors, ImageBatch, Predictions, PriorLevel, Priors, Targets
from detcore.targets import usable

Case = Mapping[str, Any]


class Scene(NamedTuple):
    """What an assigner is called with.

    Args:
        priors: N priors.
        targets: One image.
        predictions: Where there are any.
        batch: Where the image's size is known.
    """

    priors: Priors
    targets: Targets
    predictions: Predictions | None = None
    batch: ImageBatch | None = None


def scene_of(case: Case, inputs: Mapping[str, Tensor]) -> Scene:
    """The inputs of a case.

    Args:
        case: A golden case of an assigner.
        inputs: Its inputs.
    """
    targets = _targets(inputs)
    priors, predictions = _SCENES.get(case["cls"], _ordinary)(case, inputs)
    size = (case.get("call") or {}).get("img_meta", {}).get("img_shape")
    batch = ImageBatch.of(torch.zeros(1, 3, *size)) if size else None
    return Scene(priors, targets, predictions, batch)


def quality_of(outputs: Mapping[str, Tensor]) -> Tensor:
    """What the reference records as quality: overlaps, or the soft labels that its head makes of a metric.

    Object by object, the highest metric becomes the highest overlap.

    Args:
        outputs: The outputs of a case.
    """
    overlaps = outputs["max_overlaps"].clamp(min=0)
    if "assign_metrics" not in outputs:
        return overlaps
    metric, found = outputs["assign_metrics"], outputs["gt_inds"]
    result = torch.zeros_like(overlaps)
    for gt in set(found[found > 0].tolist()):
        mine = found == gt
        result[mine] = metric[mine] / (metric[mine].max() + 10e-8) * overlaps[mine].max()
    return result


_Made = tuple[Priors, Predictions | None]


def _targets(inputs: Mapping[str, Tensor]) -> Targets:
    ignored = inputs.get("ignore.bboxes", torch.zeros(0, 4))
    labels = torch.cat((inputs["gt.labels"], torch.zeros(len(ignored), dtype=torch.int64)))
    image = {
        "boxes": torch.cat((inputs["gt.bboxes"], ignored)),
        "labels": labels,
        "ignore": torch.arange(len(labels)) >= len(inputs["gt.labels"]),
    }
    return Targets.stack([image])


def _ordinary(case: Case, inputs: Mapping[str, Tensor]) -> _Made:
    """Boxes; one row of cells per level, where levels are counted: the shapes of grids do not matter."""
    boxes = inputs["pred.priors"]
    counts = case.get("call", {}).get("num_level_priors", ())
    levels = tuple(PriorLevel(1, count, 1, (1.0, 1.0)) for count in counts)
    predictions = None
    if "pred.scores" in inputs:
        predictions = Predictions(inputs["pred.scores"][None], inputs["pred.bboxes"][None])
    return Priors(boxes, torch.ones(len(boxes), 2), levels), predictions


def _approxs(case: Case, inputs: Mapping[str, Tensor]) -> _Made:
    boxes = inputs["pred.priors"]
    return ApproxPriors(boxes, torch.ones(len(boxes), 2), approxs=inputs["pred.approxs"]), None


def _points(case: Case, inputs: Mapping[str, Tensor]) -> _Made:
    """Rows of (x, y, stride), level by level."""
    points, strides = inputs["pred.priors"].split((2, 1), dim=1)  # type: ignore[no-untyped-call]
    found, counts = strides[:, 0].unique_consecutive(return_counts=True)
    levels = [PriorLevel(1, int(n), 1, (float(s), float(s))) for s, n in zip(found, counts, strict=True)]
    levels = levels or [PriorLevel(0, 0, 1, (8.0, 8.0))]
    return Priors(points.repeat(1, 2), strides.expand(-1, 2), tuple(levels)), None


def _cells(case: Case, inputs: Mapping[str, Tensor]) -> _Made:
    """Three anchors per cell; the grids are those on which the recorded ones lie."""
    boxes = inputs["pred.priors"]
    levels = (PriorLevel(8, 10, 3, (32.0, 32.0)), PriorLevel(15, 20, 3, (16.0, 16.0)))
    if not len(boxes):
        levels = tuple(level._replace(h=0, w=0) for level in levels)  # type: ignore[assignment]
    return Priors(boxes, torch.ones(len(boxes), 2), levels), None


def _regions(case: Case, inputs: Mapping[str, Tensor]) -> _Made:
    """One anchor per cell; the owner says which may be used, but for images without ground truth."""
    boxes, call = inputs["pred.priors"], case["call"]
    grids = zip(call["featmap_sizes"], call["anchor_strides"], strict=True)
    levels = tuple(PriorLevel(h, w, 1, (float(s), float(s))) for (h, w), s in grids)
    priors = Priors(boxes, torch.ones(len(boxes), 2), levels)
    if not len(inputs["gt.labels"]):  # there the reference does not look at the flags
        return priors, None
    batch = ImageBatch.of(torch.zeros(1, 3, *call["img_meta"]["img_shape"]))
    flags = inputs["pred.valid_flags"].bool()[None]
    return usable(priors.replace(valid=flags), batch, call["allowed_border"]), None


def _decoded(case: Case, inputs: Mapping[str, Tensor]) -> _Made:
    boxes = inputs["pred.priors"]
    predicted = Predictions(torch.zeros(1, len(boxes), 1), inputs["pred.decoder_priors"][None])
    return Priors(boxes, torch.ones(len(boxes), 2)), predicted


def _scored(case: Case, inputs: Mapping[str, Tensor]) -> _Made:
    """Scores that are probabilities; the logits are not to be looked at."""
    priors, predictions = _predicted_points(case, inputs)
    if case["cls"] == "TaskAlignedAssigner":
        priors = _ordinary(case, {"pred.priors": inputs["pred.priors"]})[0]
    scores = predictions.logits
    return priors, predictions.replace(logits=torch.full_like(scores, torch.nan), scores=scores)


def _predicted_points(case: Case, inputs: Mapping[str, Tensor]) -> tuple[Priors, Predictions]:
    """Rows of (x, y, stride, stride)."""
    points, strides = inputs["pred.priors"][:, :2], inputs["pred.priors"][:, 2:]
    predicted = Predictions(inputs["pred.scores"][None], inputs["pred.bboxes"][None])
    return Priors(points.repeat(1, 2), strides), predicted


def _queries(case: Case, inputs: Mapping[str, Tensor]) -> _Made:
    """Predictions alone."""
    boxes = inputs["pred.bboxes"]
    predicted = Predictions(inputs["pred.scores"][None], boxes[None])
    return Priors(torch.zeros_like(boxes), torch.ones(len(boxes), 2)), predicted


_SCENES: dict[str, Callable[[Case, Mapping[str, Tensor]], _Made]] = {
    "ApproxMaxIoUAssigner": _approxs,
    "DynamicSoftLabelAssigner": _predicted_points,
    "GridAssigner": _cells,
    "HungarianAssigner": _queries,
    "HungarianAssigner.match_costs": _queries,
    "PointAssigner": _points,
    "RegionAssigner": _regions,
    "SimOTAAssigner": _scored,
    "TaskAlignedAssigner": _scored,
    "UniformAssigner": _decoded,
}
