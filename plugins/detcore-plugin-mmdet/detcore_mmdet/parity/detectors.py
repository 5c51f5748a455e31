"""Whole models against their goldens: features, raw outputs, predictions, losses, gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from detcore.interfaces import Detector
from detcore.layers import is_batch_norm
from detcore.structures import Detections, HeadOutput, ImageBatch, ImageGeometry, Losses, Proposals, Targets
from detcore.testing import goldens
from detcore.testing.two_stage_goldens import mask_problems
from detcore_mmdet.bridge import Imported, import_detector
from detcore_mmdet.parity.result import Result
from detcore_mmdet.translation import translation_of

#: Tolerances of the goldens' README.
OUTPUT_RTOL, OUTPUT_ATOL, LOSS_RTOL, GRADIENT_RTOL = 1e-3, 1e-4, 1e-3, 1e-2
#: Of boxes, in pixels, and of scores.
BOX_ATOL, SCORE_RTOL = 0.05, 2e-3

#: Losses of a first stage that is a detector of its own.
_ALONE = {"loss_rpn_cls": "loss_cls", "loss_rpn_bbox": "loss_bbox"}

Arrays = Mapping[str, np.ndarray[Any, Any]]


def compare_detector(name: str, seed: int = 0) -> Result:
    """The whole comparison of one model golden.

    Raises:
        TranslationError: A component does not exist here yet.
    """
    meta, data = goldens.model(name, seed)
    translation_of(meta["config"])  # before anything that takes time
    imported = import_detector(meta["config"], goldens.weights(meta))
    detector, batch, result = imported.detector, batch_of(meta), Result()
    with torch.no_grad():
        _compare_outputs(detector, batch, meta, data, result)
        detections = detector.predict(batch)
    _compare_detections("predict", detections, data, result)
    if detections.masks is not None:
        result.problems += mask_problems("predict", detections, data)
    # decision: boxes are clipped to the file's size, which the reference does before it divides, not after
    _compare_detections("predict_rescale", detections.to_original(batch), data, result, batch.original_sizes)
    deterministic(detector)
    for case in ("a", "b", "c"):
        if f"loss_{case}/TOTAL" in data:
            losses = detector.loss(batch, targets_of(meta, case))
            _compare_losses(case, losses, data, result)
            if case == "a":
                detector.zero_grad()
                losses.total.backward()  # type: ignore[no-untyped-call]
                _compare_gradients(imported, data, result)
    return result


def batch_of(meta: Mapping[str, Any]) -> ImageBatch:
    """The images of a golden."""
    images = meta["metas"]
    return ImageBatch.of(
        torch.from_numpy(goldens.rules().inputs(meta)),
        [tuple(image["img_shape"]) for image in images],
        [tuple(image["pad_shape"]) for image in images],
        [ImageGeometry(tuple(image["ori_shape"]), tuple(image["scale_factor"])) for image in images],
    )


def targets_of(meta: Mapping[str, Any], case: str) -> Targets:
    """The ground truth of a loss case; boxes to ignore are rows of their own."""
    images = []
    for truth in goldens.rules().gts(meta, case):
        ignored = len(truth["ignore"])
        image = {
            "boxes": torch.from_numpy(np.concatenate([truth["boxes"], truth["ignore"].reshape(-1, 4)])),
            "labels": torch.from_numpy(np.concatenate([truth["labels"], np.zeros(ignored, np.int64)])),
            "ignore": torch.arange(len(truth["boxes"]) + ignored) >= len(truth["boxes"]),
        }
        if meta.get("with_mask"):
            empty = np.zeros((ignored, *truth["masks"].shape[1:]), np.uint8)
            image["masks"] = torch.from_numpy(np.concatenate([truth["masks"], empty])).bool()
        images.append(image)
    return Targets.stack(images)


def deterministic(detector: nn.Module) -> None:
    """Training mode without anything random or stateful: batch normalisation and dropout as in evaluation."""
    detector.train()
    for module in detector.modules():
        if is_batch_norm(module) or "Drop" in type(module).__name__:
            module.eval()
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0


# -------------------------------------------------------------------------------------------------- outputs


def _compare_outputs(
    detector: Any, batch: ImageBatch, meta: Mapping[str, Any], data: Arrays, result: Result
) -> None:
    features = detector.backbone(batch.pixels)
    _compare_maps("raw/backbone", features, meta, data, result)
    if detector.neck is not None:
        features = detector.neck(features)
        _compare_maps("raw/neck", features, meta, data, result)
    name = "rpn_head" if hasattr(detector, "rpn_head") else "bbox_head"
    head = detector.rpn_head if name == "rpn_head" else detector.head
    output, count = head(features, batch), 0
    for index, maps in enumerate(reference_maps(output)):
        _compare_maps(f"raw/{name}/{index}", maps, meta, data, result, "forward")
        count += 1
    recorded = {key.split("/")[2] for key in meta["tensors"] if key.startswith(f"raw/{name}/")}
    if len(recorded) != count:
        result.problems.append(f"raw/{name}: {count} outputs, the reference has {len(recorded)}")
    if name == "rpn_head":
        _compare_second_stage(detector, features, head.propose(output, batch), batch, meta, data, result)


def _compare_second_stage(
    detector: Any,
    features: tuple[Tensor, ...],
    proposals: Proposals,
    batch: ImageBatch,
    meta: Mapping[str, Any],
    data: Arrays,
    result: Result,
) -> None:
    """Region features and box predictions; rows follow the proposals, so only where none is padding."""
    for i, kept in enumerate(proposals.valid):
        if f"proposals_predict/{i}/bboxes" in data:
            wanted = data[f"proposals_predict/{i}/bboxes"]
            ours = proposals.boxes[i][kept][: len(wanted)]
            result.compare("forward", f"proposals {i}", ours, wanted, rtol=1e-3, atol=BOX_ATOL)
    if not proposals.valid.all():
        return
    outputs: dict[str, Any] = {}
    hooks = [
        part.register_forward_hook(lambda _m, _i, output, name=name: outputs.__setitem__(name, output))
        for name, part in detector.roi_head.named_modules()
    ]
    detector.roi_head.predict(features, proposals, batch)
    for hook in hooks:
        hook.remove()
    for name, output in outputs.items():
        several = not isinstance(output, Tensor)
        for j, value in enumerate(output if several else [output]):
            key = f"raw/roi_head.{name}/{j}" if several else f"raw/roi_head.{name}"
            if f"{key}#idx" in data:
                _compare_one(key, value.flatten(1) if several else value, meta, data, result, "forward")


def reference_maps(output: HeadOutput) -> Iterator[list[Tensor]]:
    """A dense output as the reference gives it: per kind of prediction a map [B, A*C, h, w] per level."""
    cells = sum(h * w for h, w in output.levels)
    for field in dataclasses.fields(output):
        value = getattr(output, field.name)
        if not isinstance(value, Tensor):
            continue
        value = value[..., None] if value.dim() == 2 else value
        per_cell = value.shape[1] // cells
        levels = torch.split(value, [h * w * per_cell for h, w in output.levels], 1)
        yield [
            level.reshape(len(level), h, w, -1).permute(0, 3, 1, 2)
            for level, (h, w) in zip(levels, output.levels, strict=True)
        ]


def _compare_maps(
    name: str, maps: Any, meta: Mapping[str, Any], data: Arrays, result: Result, section: str = "features"
) -> None:
    for level, value in enumerate(maps):
        key = f"{name}/{level}"
        if f"{key}#idx" not in data:
            result.problems.append(f"{key}: the reference has no such output")
            continue
        _compare_one(key, value, meta, data, result, section)


def _compare_one(
    key: str, value: Tensor, meta: Mapping[str, Any], data: Arrays, result: Result, section: str
) -> None:
    if list(value.shape) != meta["tensors"][key]:
        result.problems.append(f"{key}: shape {list(value.shape)}, the reference has {meta['tensors'][key]}")
        return
    got = value.reshape(-1)[torch.from_numpy(data[f"{key}#idx"])]
    spread = max(float(data[f"{key}#stat"][1]), 1e-6)
    result.compare(section, key, got, data[f"{key}#val"], rtol=OUTPUT_RTOL, atol=OUTPUT_ATOL * spread)


# ----------------------------------------------------------------------------------------------- detections


def _compare_detections(
    name: str, detections: Detections, data: Arrays, result: Result, limits: Tensor | None = None
) -> None:
    for i, found in enumerate(detections.unpad()):
        wanted = data[f"{name}/{i}/bboxes"]
        if limits is not None:
            wanted = np.minimum(wanted, limits[i].flip(0).repeat(2).numpy())
        number = int(data[f"{name}/{i}/num"])
        if len(found) != number:
            result.problems.append(f"{name}/{i}: {len(found)} detections, the reference has {number}")
        boxes, scores, labels = (value.cpu().numpy() for value in (found.boxes, found.scores, found.labels))
        recorded = (data[f"{name}/{i}/scores"], data[f"{name}/{i}/labels"])
        rows = match_rows(boxes, scores, labels, wanted, *recorded)
        rows = without_ties(rows, boxes, scores, labels, wanted, *recorded)
        if (rows == -1).any():
            result.problems.append(f"{name}/{i}: {(rows == -1).sum()} of {len(rows)} detections have no like")
        there, ours = np.flatnonzero(rows >= 0), rows[rows >= 0]
        result.compare(
            "prediction", f"{name}/{i}/boxes", found.boxes[ours], wanted[there], rtol=1e-3, atol=BOX_ATOL
        )
        scores = data[f"{name}/{i}/scores"][there]
        result.compare("prediction", f"{name}/{i}/scores", found.scores[ours], scores, rtol=SCORE_RTOL)


def match_rows(
    boxes: Any, scores: Any, labels: Any, ref_boxes: Any, ref_scores: Any, ref_labels: Any
) -> np.ndarray[Any, Any]:
    """For each of the reference's detections our row that is most like it, each used once; -1 where none is.

    Near-ties may swap their places, so rows are matched by label, box and score.
    """
    rows = np.full(len(ref_boxes), -1)
    if not len(boxes):
        return rows
    distance = np.abs(ref_boxes[:, None].astype(np.float64) - boxes[None]).max(-1)
    distance += 10 * np.abs(ref_scores[:, None] - scores[None]) / np.maximum(ref_scores[:, None], 1e-3)
    distance[ref_labels[:, None] != labels[None]] = np.inf
    for row in range(len(rows)):
        best = int(distance[row].argmin())
        if distance[row, best] < 1.0:
            rows[row] = best
            distance[:, best] = np.inf
    return rows


def without_ties(
    rows: np.ndarray[Any, Any],
    boxes: Any,
    scores: Any,
    labels: Any,
    ref_boxes: Any,
    ref_scores: Any,
    ref_labels: Any,
) -> np.ndarray[Any, Any]:
    """The rows of :func:`match_rows`, with -2 where the suppression had to choose among equal scores.

    Proposals thinner than a cell have the same features, so the same scores to the last bit, and other boxes. Of
    overlapping ones the reference keeps any, detcore the first. At most one detection in fifty may be such.
    """
    if not len(boxes):
        return rows
    close = np.abs(boxes[rows] - ref_boxes).max(-1) <= BOX_ATOL + 1e-3 * np.abs(ref_boxes).max(-1)
    differ = (rows < 0) | ~close
    used, tied = set(rows[~differ].tolist()), np.zeros(len(rows), dtype=bool)
    for row in np.flatnonzero(differ):
        for other in set(range(len(boxes))) - used:
            same = labels[other] == ref_labels[row] and np.isclose(
                scores[other], ref_scores[row], rtol=1e-6, atol=0
            )
            if (
                same
                and box_iou(*(torch.as_tensor(b)[None].float() for b in (boxes[other], ref_boxes[row]))) > 0.5
            ):
                tied[row] = True
                used.add(other)
                break
    return np.where(tied, -2, rows) if tied.sum() <= max(1, len(rows) // 50) else rows


# -------------------------------------------------------------------------------------- losses and gradients


def _compare_losses(case: str, losses: Losses, data: Arrays, result: Result) -> None:
    prefix = f"loss_{case}/"
    recorded = {name.removeprefix(prefix): value for name, value in data.items() if name.startswith(prefix)}
    total = recorded.pop("TOTAL")
    result.compare("loss", f"{prefix}TOTAL", losses.total.reshape(1), total.reshape(1), rtol=LOSS_RTOL)
    for name, value in recorded.items():
        name = name if name in losses or name not in _ALONE else _ALONE[name]
        if name in losses:
            scale = max(abs(float(value.sum())), 1e-3 * abs(float(total.sum())))
            result.compare(
                "loss",
                prefix + name,
                losses[name].reshape(()),
                value.sum(),
                rtol=LOSS_RTOL,
                atol=1e-6,
                scale=scale,
            )
        elif "loss" in name:
            result.problems.append(f"{prefix}{name}: no such loss here")


def _compare_gradients(imported: Imported, data: Arrays, result: Result) -> None:
    detector: Detector = imported.detector
    parameters, names = dict(detector.named_parameters()), imported.keys.mapped if imported.keys else {}
    gradients = [p.grad for p in parameters.values() if p.grad is not None]
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    result.compare(
        "gradient", "grad_total_norm", norm, data["grad_total_norm"].reshape(()), rtol=GRADIENT_RTOL
    )
    for key in [k.removesuffix("#norm") for k in data if k.startswith("grad/") and k.endswith("#norm")]:
        gradient = parameters[names[key.removeprefix("grad/")]].grad
        if gradient is None:
            result.problems.append(f"{key}: no gradient")
            continue
        largest = float(gradient.abs().max())
        values = gradient.reshape(-1)[torch.from_numpy(data[f"{key}#idx"])]
        result.compare(
            "gradient", f"{key}#norm", gradient.norm(), data[f"{key}#norm"].reshape(()), rtol=GRADIENT_RTOL
        )
        result.compare(
            "gradient",
            key,
            values,
            data[f"{key}#val"],
            rtol=GRADIENT_RTOL,
            atol=GRADIENT_RTOL * largest,
            scale=largest,
        )
