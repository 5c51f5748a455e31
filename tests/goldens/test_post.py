"""Non-maximum suppression against the reference's detections."""

from __future__ import annotations

import pytest
import torch
from detcore_postprocess import batched_nms, multiclass_nms

from detcore.testing.goldens import missing, read, task_cases

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

NEGATIVE, ROUNDING, SORTED = (
    f"post.batched_nms.{name}" for name in ("negative_coords", "float_offset", "none")
)


def cases(*classes, where=lambda case: True):
    return [pytest.param(case, id=case["id"]) for case in task_cases("post", *classes, where=where)]


def is_hard(case):
    return case["call"]["nms_cfg"]["type"] == "nms"


def grown(boxes, offset):
    """The reference's ``offset`` counts the last pixel as part of the box, which is a box that ends later."""
    return boxes + boxes.new_tensor([0.0, 0.0, offset, offset])


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", cases("multiclass_nms", where=is_hard))
def test_multiclass_nms(case):
    inputs, outputs, call = read(case, "inputs"), read(case, "outputs"), case["call"]
    config = dict(call["nms_cfg"])
    assert config.pop("type") == "nms"
    config.pop("split_thr", None)  # from how many boxes on the reference works class by class
    offset, inner = config.pop("offset", 0), config.pop("max_num", -1)
    limits = [n for n in (inner, call["max_num"]) if n >= 0]
    scores = inputs["multi_scores"][:, :-1]
    boxes = inputs["multi_bboxes"]
    boxes = boxes if boxes.shape[1] == 4 else boxes.reshape(len(boxes), -1, 4)
    factors = inputs.get("score_factors")
    detections, index = multiclass_nms(
        grown(boxes, offset)[None],
        scores[None],
        score_thr=call["score_thr"],
        max_per_img=min(limits) if limits else None,
        factors=None if factors is None else factors[None],
        **config,
    )
    (found,) = detections.unpad()
    assert index[detections.valid].tolist() == outputs["inds"].tolist()
    assert found.labels.tolist() == outputs["labels"].tolist()
    close(torch.cat((grown(found.boxes, -offset), found.scores[:, None]), 1), outputs["dets"])


@pytest.mark.parametrize("case", cases("mmcv.ops.nms"))
def test_nms(case):
    inputs, outputs, call = read(case, "inputs"), read(case, "outputs"), dict(case["call"])
    boxes, scores = inputs["boxes"], inputs["scores"]
    valid = scores > call.pop("score_threshold", -1.0)
    count = call.pop("max_num", len(boxes))
    moved = grown(boxes, call.pop("offset", 0))
    kept = batched_nms(moved, scores, torch.zeros(len(boxes), dtype=torch.int64), valid=valid, **call)[:count]
    assert kept.tolist() == outputs["inds"].tolist()
    close(torch.cat((boxes[kept], scores[kept, None]), 1), outputs["dets"])


@pytest.mark.parametrize("case", cases("mmcv.ops.batched_nms"))
def test_batched_nms(case):
    inputs, outputs, call = read(case, "inputs"), read(case, "outputs"), dict(case["call"])
    boxes, scores, groups = inputs["boxes"], inputs["scores"], inputs["idxs"]
    if case["id"] == SORTED:
        call = {"iou_threshold": 1.0}
    if call.pop("class_agnostic", False):
        groups = torch.zeros_like(groups)
    kept = batched_nms(boxes, scores, groups, call.pop("iou_threshold"))
    assert not call
    if case["id"] == NEGATIVE:  # the reference lets a class suppress another one here
        assert len(outputs["keep"]) < len(kept)
        apart = [batched_nms(boxes, scores, groups, 0.5, valid=groups == group) for group in groups.unique()]
        assert sorted(kept.tolist()) == sorted(torch.cat(apart).tolist())
    elif case["id"] == ROUNDING:  # the reference rounds: run on the class alone, it keeps one
        assert len(kept) == outputs["num_kept_single"] != outputs["num_kept_batched"]
    else:
        assert kept.tolist() == outputs["keep"].tolist()
        close(torch.cat((boxes[kept], scores[kept, None]), 1), outputs["dets"])
