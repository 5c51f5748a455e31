"""Checking a two-stage detector against its golden numbers: outputs, losses, gradients, detections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detcore.detectors import TwoStageDetector
from detcore.structures import DenseOutput, Detections, ImageBatch, Proposals
from detcore.testing import goldens
from detcore.testing.detector_goldens import (
    as_maps,
    batch_of,
    detection_problems,
    loss_problems,
    set_deterministic,
    targets_of,
    total_gradient_problems,
)
from detcore.testing.module_goldens import difference, gradient_problems
from detcore.weights import RenameRules


def two_stage_problems(
    detector: TwoStageDetector,
    meta: Mapping[str, Any],
    data: Mapping[str, np.ndarray],
    rules: RenameRules,
    *,
    rtol: float = 1e-3,
    gradient_rtol: float = 1e-2,
) -> list[str]:
    """What a detector does otherwise than its golden says; empty where all agrees.

    Args:
        detector: With the golden's weights.
        meta: The golden's description.
        data: The golden's arrays.
        rules: From the reference's weight names to the detector's.
        rtol: Relative tolerance of outputs, losses and scores.
        gradient_rtol: Tolerance of gradients, relative to the largest value of their tensor.
    """
    batch = batch_of(meta)
    detector.eval()
    with torch.no_grad():
        features = detector.features(batch)
        output = detector.rpn_head(features, batch)
        proposals = detector.rpn_head.propose(output, batch)
        found = first_stage_problems(output, meta, data, "rpn_head", rtol)
        found += proposal_problems("proposals_predict", proposals, data)
        with recorded(detector.roi_head, "roi_head") as outputs:
            detections = detector.roi_head.predict(features, proposals, batch)
    found += second_stage_problems(outputs, proposals, meta, data, rtol)
    found += prediction_problems(detections, batch, meta, data)
    set_deterministic(detector)
    for case in ("c", "b", "a"):
        losses = detector.loss(batch, targets_of(meta, case))
        found += loss_problems(case, losses, data, rtol)
    detector.zero_grad()
    losses.total.backward()  # type: ignore[no-untyped-call]
    found += total_gradient_problems(detector, data, gradient_rtol)
    found += gradient_problems(detector, data, rules, gradient_rtol)
    return [message for message in found if message]


def first_stage_problems(
    output: DenseOutput, meta: Mapping[str, Any], data: Mapping[str, np.ndarray], name: str, rtol: float
) -> list[str]:
    """Differences in what the first stage predicts."""
    return [
        goldens.compare(f"raw/{name}/{index}/{level}", values, meta, data, rtol=rtol)
        for index, field in enumerate((output.logits, output.codes))
        for level, values in enumerate(as_maps(field, output.levels))
    ]


@contextmanager
def recorded(module: nn.Module, prefix: str) -> Iterator[dict[str, Any]]:
    """Collects the output of every part of a module, by its path."""
    outputs: dict[str, Any] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: outputs.__setitem__(name, output)

    hooks = [part.register_forward_hook(keep(f"{prefix}.{name}")) for name, part in module.named_modules()]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def second_stage_problems(
    outputs: Mapping[str, Any],
    proposals: Proposals,
    meta: Mapping[str, Any],
    data: Mapping[str, np.ndarray],
    rtol: float,
) -> list[str]:
    """Differences in the features and predictions of regions; none is compared where there is padding."""
    if not proposals.valid.all():
        return []
    found = []
    for name, output in outputs.items():
        values = [output] if isinstance(output, Tensor) else [value.flatten(1) for value in output]
        for index, value in enumerate(values):
            key = f"raw/{name}" if len(values) == 1 else f"raw/{name}/{index}"
            if f"{key}#idx" in data:
                found.append(goldens.compare(key, value, meta, data, rtol=rtol))
    return found


def proposal_problems(prefix: str, proposals: Proposals, data: Mapping[str, np.ndarray]) -> list[str]:
    """Differences in the proposals, row by row."""
    found = []
    for index, kept in enumerate(proposals.valid):
        for name, values in (("bboxes", proposals.boxes), ("scores", proposals.scores)):
            recorded = data[f"{prefix}/{index}/{name}"]
            ours = values[index][kept][: len(recorded)]
            if len(ours) != len(recorded):
                found.append(f"{prefix}/{index}: {int(kept.sum())} proposals, the golden has {len(recorded)}")
                break
            found.append(difference(f"{prefix}/{index}/{name}", ours, recorded, 1e-4, 1e-2))
    return found


def prediction_problems(
    detections: Detections, batch: ImageBatch, meta: Mapping[str, Any], data: Mapping[str, np.ndarray]
) -> list[str]:
    """Differences in detections, in the batch and on the way back to the files."""
    sizes = [m["ori_shape"] for m in meta["metas"]]
    found = []
    for prefix, ours in (("predict", detections), ("predict_rescale", detections.to_original(batch))):
        found += detection_problems(prefix, ours, data, sizes=sizes if "rescale" in prefix else None)
        if ours.masks is not None:
            found += mask_problems(prefix, ours, data)
    return found


def mask_problems(prefix: str, detections: Detections, data: Mapping[str, np.ndarray]) -> list[str]:
    """Differences in pasted masks: areas, and for some the pixels; only a part of the rows may differ.

    Logits near 0 flip by the last bit, and rows of nearly equal scores change places.
    """
    found = []
    for index, ours in enumerate(detections.unpad()):
        name = f"{prefix}/{index}"
        if ours.masks is None or list(ours.masks.shape) != data[f"{name}/mask_shape"].tolist():
            found.append(f"{name}: masks do not have the shape {data[f'{name}/mask_shape'].tolist()}")
            continue
        areas = torch.from_numpy(data[f"{name}/mask_area"].astype(np.float64))
        own = ours.masks[: len(areas)].flatten(1).sum(1).double()
        close = (own - areas).abs() <= 2 + 0.05 * areas
        if close.double().mean() < 0.9:
            found.append(f"{name}: {int((~close).sum())} of {len(areas)} masks have another area")
        bits = np.unpackbits(data[f"{name}/mask_bits"])[: ours.masks[:4].numel()]
        same = (torch.from_numpy(bits.astype(bool)) == ours.masks[:4].flatten()).double().mean()
        if same < 0.99:
            found.append(f"{name}: {float(same):.1%} of the pixels of the first masks agree")
    return found
