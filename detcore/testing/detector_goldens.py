"""Checking a one-stage detector against its golden numbers: raw outputs, losses, gradients, detections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from detcore.boxes import clip
from detcore.detectors import SingleStageDetector
from detcore.interfaces import Detector
from detcore.layers import is_batch_norm
from detcore.structures import Detections, HeadOutput, ImageBatch, ImageGeometry, Losses, Targets
from detcore.testing import goldens
from detcore.testing.module_goldens import difference, gradient_problems
from detcore.weights import RenameRules


def batch_of(meta: Mapping[str, Any]) -> ImageBatch:
    """The images of a detector's golden: normalised already, the second one smaller than the batch."""
    images = meta["metas"]
    return ImageBatch.of(
        torch.from_numpy(goldens.rules().inputs(meta)),
        [tuple(m["img_shape"]) for m in images],
        [tuple(m["pad_shape"]) for m in images],
        [ImageGeometry(tuple(m["ori_shape"]), tuple(m["scale_factor"])) for m in images],
    )


def targets_of(meta: Mapping[str, Any], case: str) -> Targets:
    """The ground truth of one of a golden's loss cases, its regions to ignore at the end."""
    images = []
    for gt in goldens.rules().gts(meta, case):
        boxes, ignored = gt["boxes"].reshape(-1, 4), gt["ignore"].reshape(-1, 4)
        images.append(
            {
                "boxes": torch.from_numpy(np.concatenate((boxes, ignored))),
                "labels": torch.from_numpy(np.concatenate((gt["labels"], np.zeros(len(ignored), np.int64)))),
                "ignore": torch.arange(len(boxes) + len(ignored)) >= len(boxes),
            }
        )
        if meta["with_mask"]:
            masks = np.pad(gt["masks"], ((0, len(ignored)), (0, 0), (0, 0)))
            images[-1]["masks"] = torch.from_numpy(masks).bool()
    return Targets.stack(images)


def detector_problems(
    detector: SingleStageDetector,
    meta: Mapping[str, Any],
    data: Mapping[str, np.ndarray],
    rules: RenameRules,
    fields: Sequence[str] = ("logits", "codes"),
    *,
    rtol: float = 1e-3,
    gradient_rtol: float = 1e-2,
) -> list[str]:
    """What a detector with a dense head does otherwise than its golden says; empty where all agrees.

    Args:
        detector: With the golden's weights.
        meta: The golden's description.
        data: The golden's arrays.
        rules: From the reference's weight names to the detector's.
        fields: The fields of the head's output, in the order of the reference's outputs.
        rtol: Relative tolerance of outputs, losses and scores.
        gradient_rtol: Tolerance of gradients, relative to the largest value of their tensor.
    """
    batch = batch_of(meta)
    set_deterministic(detector)
    output = detector.head(detector.features(batch), batch)
    found = _output_problems(output, meta, data, fields, rtol)
    detections = detector.head.predict(output, batch)
    found += detection_problems("predict", detections, data)
    found += detection_problems(
        "predict_rescale", detections.to_original(batch), data, sizes=[m["ori_shape"] for m in meta["metas"]]
    )
    losses = {c: detector.head.loss(output, targets_of(meta, c), batch) for c in meta["loss_cases"]}
    for case in losses:
        found += loss_problems(case, losses[case], data, rtol)
    detector.zero_grad()
    losses["a"].total.backward()  # type: ignore[no-untyped-call]
    found += total_gradient_problems(detector, data, gradient_rtol)
    found += gradient_problems(detector, data, rules, gradient_rtol)
    return [message for message in found if message]


def set_deterministic(detector: Detector) -> None:
    """Training, but for normalisation and dropout: the setting in which the goldens were made."""
    detector.train()
    for module in detector.modules():
        if is_batch_norm(module) or isinstance(module, nn.Dropout):
            module.eval()


def _output_problems(
    output: HeadOutput,
    meta: Mapping[str, Any],
    data: Mapping[str, np.ndarray],
    fields: Sequence[str],
    rtol: float,
) -> list[str]:
    found = []
    for index, field in enumerate(fields):
        for level, values in enumerate(as_maps(getattr(output, field), output.levels)):
            found.append(goldens.compare(f"raw/bbox_head/{index}/{level}", values, meta, data, rtol=rtol))
    return found


def as_maps(values: Tensor, levels: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Per-prior values [B, N, ...] as the maps [B, A*C, h, w] that the network made."""
    cells = sum(h * w for h, w in levels)
    rows = torch.split(values.reshape(len(values), cells, -1), [h * w for h, w in levels], dim=1)
    return [
        row.transpose(1, 2).reshape(len(row), -1, *level) for row, level in zip(rows, levels, strict=True)
    ]


def loss_problems(case: str, losses: Losses, data: Mapping[str, np.ndarray], rtol: float) -> list[str]:
    """Differences in the terms of a loss case and in their sum."""
    prefix = f"loss_{case}/"
    # the reference sums what has "loss" in its name, and so do its records; TOTAL is the sum
    recorded = {
        name.removeprefix(prefix): data[name]
        for name in data
        if name.startswith(prefix) and "loss" in name[len(prefix) :]
    }
    if set(recorded) != set(losses):
        return [f"loss_{case}: terms {sorted(losses)}, the golden has {sorted(recorded)}"]
    found = [difference(f"{prefix}{k}", losses[k], v.sum(), rtol) for k, v in recorded.items()]
    return [*found, difference(f"{prefix}TOTAL", losses.total, data[f"{prefix}TOTAL"].sum(), rtol)]


def total_gradient_problems(detector: Detector, data: Mapping[str, np.ndarray], rtol: float) -> list[str]:
    """A difference in the norm over all gradients."""
    norms = [p.grad.double().norm() for p in detector.parameters() if p.grad is not None]
    return [difference("grad_total_norm", torch.stack(norms).norm(), data["grad_total_norm"].sum(), rtol)]


def detection_problems(
    prefix: str,
    detections: Detections,
    data: Mapping[str, np.ndarray],
    *,
    sizes: Sequence[Sequence[int]] | None = None,
    tolerance: float = 1e-3,
) -> list[str]:
    """Recorded detections that have no counterpart of the same class, place and score.

    Args:
        prefix: ``predict`` or ``predict_rescale``.
        detections: Ours.
        data: The golden's arrays.
        sizes: (h, w) per image that the recorded boxes are cut off at, which the reference does not do after
            the way back to the file.
        tolerance: Of scores; and near the last score of a full list, those of others may take the places.
    """
    found = []
    for index, ours in enumerate(detections.unpad()):
        name = f"{prefix}/{index}"
        count = int(data[f"{name}/num"].reshape(-1)[0])
        if count != len(ours):
            found.append(f"{name}: {len(ours)} detections, the golden has {count}")
        boxes, scores, labels = (
            torch.from_numpy(data[f"{name}/{k}"]) for k in ("bboxes", "scores", "labels")
        )
        if sizes is not None:
            boxes = clip(boxes, torch.tensor(sizes[index]))
        same = (labels[:, None] == ours.labels) & ((scores[:, None] - ours.scores).abs() < tolerance)
        near = (boxes[:, None] - ours.boxes).abs().amax(-1) < 0.1
        near |= box_iou(boxes, ours.boxes) > 0.99
        lost = ~(same & near).any(1) & (scores > scores.min() + tolerance)
        if lost.any():
            found.append(f"{name}: {int(lost.sum())} of {len(boxes)} recorded ones are not among ours")
    return found
