"""Single components against their goldens: each case's arguments go through ``translate``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from detcore.errors import ConfigError
from detcore.serialize import build
from detcore.structures import ImageBatch, Priors, Targets
from detcore.testing import goldens
from detcore_mmdet.parity import losses, samplers
from detcore_mmdet.parity.result import Result
from detcore_mmdet.parity.scenes import quality_of, scene_of
from detcore_mmdet.translation import translate

#: Families of goldens that are components, and what compares them.
FAMILIES = ("priors", "coders", "assigners", "samplers", "losses")
#: What the reference takes per call, and a component here as a parameter.
_CALL_PARAMETERS = ("max_dis", "eps", "wh_ratio_clip", "ignore_index", "alpha", "beta")
Case = Mapping[str, Any]

#: Cases that are not to be equal, with the decision.
DECISIONS = {
    "assigners.maxiou.neg_list": "neg_iou_thr as a list is a range; the reference leaves no background",
    "coders.tblr.int_normalizer": "an integer normalizer is a number like any other; the reference raises",
    **losses.DECISIONS,
}


def cases_of(family: str) -> list[Case]:
    """The cases of a family that are about one component."""
    return [c for c in goldens.task_cases(family) if c["cls"][:1].isupper() and "." not in c["cls"]]


def compare_case(case: Case) -> Result:
    """The comparison of one case.

    Raises:
        TranslationError: The component does not exist here yet.
    """
    config = {"type": case["cls"], **case["args"]}
    translated = {
        **translate(config),
        **{n: v for n, v in case.get("call", {}).items() if n in _CALL_PARAMETERS},
    }
    component, result = build(translated), Result()
    _COMPARISONS[case["family"]](component, case, result)
    if case["id"] in DECISIONS:
        result.problems.clear()
        result.errors.clear()
    return result


# --------------------------------------------------------------------------------------------------- priors


def _priors(generator: Any, case: Case, result: Result) -> None:
    outputs, call = goldens.read(case, "outputs"), case.get("call", {})
    method = call.get("method")
    if method is None:
        if "base_anchors" in outputs:
            for level, (got, want) in enumerate(
                zip(generator.base_anchors, outputs["base_anchors"], strict=True)
            ):
                result.compare("forward", f"base anchors {level}", got, want, rtol=0)
        return
    height, width = call.get("pad_shape", (1, 1))[:2]
    batch = ImageBatch.of(torch.zeros(1, 3, 1, 1), padded_sizes=[(height, width)])
    sizes = call.get("featmap_sizes") or [call["featmap_size"]] * len(generator.strides)
    priors = generator([tuple(size) for size in sizes], batch)
    if method == "valid_flags":
        _valid(priors, outputs, result)
        return
    if method == "sparse_priors":
        before = sum(level.count for level in priors.levels[: call["level_idx"]])
        priors = priors.gather(goldens.read(case, "inputs")["prior_idxs"] + before)
    rows = priors.boxes if hasattr(generator, "base_anchors") else priors.centers
    if call.get("with_stride"):
        rows = torch.cat((rows, priors.strides), -1)
    if method == "sparse_priors":
        result.compare("forward", "sparse", rows, outputs["priors"], rtol=0)
    elif "priors" in outputs:
        result.compare("forward", "grid", rows, torch.cat(list(outputs["priors"])), rtol=0)
    else:
        result.compare("forward", "grid", rows[outputs["sample_idx"]], outputs["sample_rows"], rtol=0)


def _valid(priors: Priors, outputs: Mapping[str, Any], result: Result) -> None:
    valid = torch.ones(1, len(priors), dtype=torch.bool) if priors.valid is None else priors.valid
    levels = torch.split(valid[0], [level.count for level in priors.levels])
    if "flags" in outputs:
        wrong = sum(int((got != want).sum()) for got, want in zip(levels, outputs["flags"], strict=True))
    else:
        wrong = sum(
            abs(int(got.sum()) - int(want)) for got, want in zip(levels, outputs["count"], strict=True)
        )
    result.count("forward", "valid", wrong, len(priors))


# --------------------------------------------------------------------------------------------------- coders


def _coders(coder: Any, case: Case, result: Result) -> None:
    inputs, method = goldens.read(case, "inputs"), case["call"]["method"]
    boxes = inputs["bboxes"] if "bboxes" in inputs else torch.cat((inputs["points"], inputs["points"]), -1)
    strides = torch.as_tensor(inputs.get("stride", 1), dtype=torch.float32).reshape(-1, 1)
    priors = Priors(boxes, strides.expand(boxes.shape[-2], 2))
    if "raises" in case:
        return
    if case["cls"] == "BucketingBBoxCoder":
        _buckets(coder, priors, inputs, case, result)
        return
    (want,) = goldens.read(case, "outputs").values()
    if method == "encode":
        got, atol = coder.encode(priors, inputs["gt_bboxes"]).values, 1e-5
    elif method == "decode":
        codes = inputs["deltas"] if "deltas" in inputs else inputs["distances"]
        if codes.shape[-1] > 4:  # (N, K * 4) in the reference
            codes, want = codes.unflatten(-1, (-1, 4)), want.unflatten(-1, (-1, 4))
            priors = priors.replace(boxes=boxes[:, None])
        got, atol = coder.decode(priors, codes, _sizes(case["call"].get("max_shape"))), 1e-4
    else:
        got = coder.encode(priors, coder.decode(priors, inputs["deltas"])).values
        atol = 3e-5
    result.compare("forward", method, got, want, rtol=1e-5, atol=atol)


def _buckets(coder: Any, priors: Priors, inputs: Mapping[str, Any], case: Case, result: Result) -> None:
    """Values and weights are halves of one tensor each here."""
    outputs = goldens.read(case, "outputs")
    if case["call"]["method"] == "encode":
        values, weights = coder.encode(priors, inputs["gt_bboxes"])
        got = dict(zip(("bucket_labels", "offsets"), values.chunk(2, -1), strict=True))
        got |= dict(zip(("bucket_cls_weights", "offsets_weights"), weights.chunk(2, -1), strict=True))
    else:
        codes = torch.cat((inputs["cls_preds"], inputs["offset_preds"]), -1)
        boxes = coder.decode(priors, codes, _sizes(case["call"].get("max_shape")))
        got = {"bboxes": boxes, "loc_confidence": coder.confidence(codes)}
    for name, want in outputs.items():
        result.compare("forward", name, got[name], want, rtol=1e-5, atol=1e-4)


def _sizes(shapes: Any) -> Tensor | None:
    if shapes is None:
        return None
    return torch.tensor([row[:2] for row in shapes] if isinstance(shapes[0], list) else shapes[:2])


# ------------------------------------------------------------------------------------ assigners and samplers


def _assigners(assigner: Any, case: Case, result: Result) -> None:
    inputs, outputs = goldens.read(case, "inputs"), goldens.read(case, "outputs")
    call = case.get("call", {})
    if call.get("method") == "assign_wrt_overlaps":
        overlaps = inputs["overlaps"][None]
        boxes = torch.zeros(overlaps.shape[1], 4)
        targets = Targets.stack([{"boxes": boxes, "labels": inputs["gt.labels"]}])
        assignment = assigner.assign_overlaps(overlaps, targets.matchable, (overlaps >= 0).any(dim=1))
    else:
        assignment = assigner.assign(*scene_of(case, inputs))
    if "raises" in case:  # too few priors for the reference; here a ground truth takes what there is
        return
    state, index = assignment.state[0].long(), assignment.gt_index[0]
    got = torch.where(state == 1, index + 1, state)
    result.count("forward", "gt_inds", int((got != outputs["gt_inds"]).sum()), len(got))
    if outputs.get("max_overlaps") is not None and len(outputs["max_overlaps"]) == len(got):
        quality = quality_of(outputs)
        result.compare("forward", "max_overlaps", assignment.quality[0], quality, rtol=1e-5, atol=1e-6)


# --------------------------------------------------------------------------------------------------- losses


def _losses(loss: Any, case: Case, result: Result) -> None:
    try:
        for section, name, got, want in losses.outcomes(loss, case):
            result.compare(section, name, got, want, rtol=5e-5, atol=1e-6)
    except ConfigError:
        if not case.get("raises"):
            raise
        return
    if case.get("raises"):
        result.problems.append("no error, the reference raises")


_COMPARISONS: dict[str, Callable[[Any, Case, Result], None]] = {
    "priors": _priors,
    "coders": _coders,
    "assigners": _assigners,
    "samplers": samplers.compare_sampler,
    "losses": _losses,
}
