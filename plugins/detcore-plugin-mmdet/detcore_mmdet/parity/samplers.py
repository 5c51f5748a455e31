"""Samplers against their goldens: indices where nothing is random, numbers where something is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from detcore.interfaces.sampler import SamplingPredictions
from detcore.serialize import build
from detcore.structures import Assignment, Priors
from detcore.testing import goldens
from detcore_mmdet.parity.result import Result


def compare_sampler(sampler: Any, case: Mapping[str, Any], result: Result) -> None:
    """One sample of the recorded assignment, to which ground truths are added as a sampler's owner does."""
    inputs, outputs = goldens.read(case, "inputs"), goldens.read(case, "outputs")
    found, quality = inputs["assign.gt_inds"], inputs["assign.max_overlaps"]
    added = 0
    if case["args"].get("add_gt_as_proposals", case["cls"] != "PseudoSampler"):
        added = len(inputs["gt.bboxes"])
        found = torch.cat((torch.arange(1, added + 1), found))
        quality = torch.cat((torch.ones(added), quality))
    state = found.clamp(max=1)[None].to(torch.int8)
    assignment = Assignment((found - 1).clamp(min=0)[None], state, quality[None])
    sample = sampler.sample(
        assignment,
        predict=lambda: _predictions(inputs, assignment, added),
        generator=torch.Generator().manual_seed(0),
    )
    if "neg_label_weights" in outputs:
        _weighted(sample.negative[0], sample.weight[0], outputs, case["call"]["num_valid_neg"], result)
    elif "pos_inds" in outputs:
        for name, flags in (("pos_inds", sample.positive), ("neg_inds", sample.negative)):
            got, want = set(flags[0].nonzero()[:, 0].tolist()), set(outputs[name].tolist())
            result.count("forward", name, len(got ^ want), len(want))
    for name, flags in (("num_pos", sample.positive), ("num_neg", sample.negative)):
        if f"{name}_min" in outputs:
            inside = outputs[f"{name}_min"] <= int(flags.sum()) <= outputs[f"{name}_max"]
            result.count("forward", name, int(not inside), 1)


def _weighted(
    negative: Tensor, weight: Tensor, outputs: Mapping[str, Any], count: int, result: Result
) -> None:
    """Negatives and weights; those beyond ``count`` are random. Weights are sorted: neighbours may change places."""
    ranked = outputs["neg_inds"][:count]
    result.count("forward", "neg_inds", int((~negative[ranked]).sum()), len(ranked))
    result.count("forward", "num_neg", abs(int(negative.sum()) - outputs["num_neg"]), outputs["num_neg"])
    want = outputs["neg_label_weights"][: len(ranked)].sort().values
    result.compare("forward", "weights", weight[ranked].sort().values, want, rtol=1e-4)


def _predictions(inputs: Mapping[str, Tensor], assignment: Assignment, added: int) -> SamplingPredictions:
    """What a softmax head with class-wise boxes hands over; background is its last channel."""
    logits = inputs["cls_score"]
    positive, background = assignment.positive[0], logits.shape[-1] - 1
    labels = torch.full_like(assignment.gt_index[0], background)
    labels[positive] = inputs["gt.labels"][assignment.gt_index[0][positive]]
    scores = logits.softmax(-1)[:, :-1]
    boxes = torch.cat((inputs["gt.bboxes"][:added], inputs["priors"]))
    if "bbox_pred" in inputs:
        coder: Any = build({"type": "DeltaXYWHBBoxCoder", "target_stds": [0.1, 0.1, 0.2, 0.2]})
        codes = inputs["bbox_pred"].reshape(len(boxes), background, 4)
        codes = codes[torch.arange(len(boxes)), scores.argmax(-1)]
        boxes = coder.decode(Priors(boxes, torch.zeros(len(boxes), 2)), codes)
    losses = F.cross_entropy(logits, labels, reduction="none")
    return SamplingPredictions(losses[None], logits[None], boxes[None], scores[None])
