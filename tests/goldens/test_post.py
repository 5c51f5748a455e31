"""Non-maximum suppression against the reference's detections."""

from __future__ import annotations

import pytest
import torch
from detcore_mmdet.families.postprocess import level_nms, nms_postprocess
from detcore_mmdet.options import Options, Report
from detcore_postprocess import (
    FastNMS,
    SoftNMS,
    WeightedBoxesFusion,
    average_boxes,
    average_masks,
    average_scores,
    batched_nms,
    boxes_to_original,
    mask_matrix_nms,
    merge_proposals,
    multiclass_nms,
    nms_match,
    weighted_boxes_fusion,
)

from detcore import build
from detcore.structures import Detections, ImageBatch, ImageGeometry, Proposals
from detcore.testing.goldens import missing, read, task_cases

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

NEGATIVE, ROUNDING, SORTED = (
    f"post.batched_nms.{name}" for name in ("negative_coords", "float_offset", "none")
)


def cases(*classes, where=lambda case: True):
    return [pytest.param(case, id=case["id"]) for case in task_cases("post", *classes, where=where)]


def grown(boxes, offset):
    """The reference's ``offset`` counts the last pixel as part of the box, which is a box that ends later."""
    return boxes + boxes.new_tensor([0.0, 0.0, offset, offset])


def close(actual, expected):
    """The reference moves classes apart in float32, which soft suppression sees in the fifth digit."""
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def translated(settings, translator=nms_postprocess):
    """Post-processing as the bridge makes it of a ``test_cfg``; nothing may be left over."""
    report = Report()
    options = Options(settings, "test_cfg", report, lambda options: None)
    config = translator(options)
    options.finish()
    assert report.problems == []
    return build(config, kind="postprocess")


@pytest.mark.parametrize("case", cases("multiclass_nms"))
def test_multiclass_nms(case):
    """Detections and indices by the function, and the same detections by the component."""
    inputs, outputs, call = read(case, "inputs"), read(case, "outputs"), case["call"]
    scores = inputs["multi_scores"][:, :-1]
    boxes = inputs["multi_bboxes"]
    boxes = boxes if boxes.shape[1] == 4 else boxes.reshape(len(boxes), -1, 4)
    most = call["max_num"] if call["max_num"] >= 0 else max(1, scores.numel())
    post = translated({"score_thr": call["score_thr"], "nms": call["nms_cfg"], "max_per_img": most})
    factors = None if "score_factors" not in inputs else inputs["score_factors"][None]
    whole, index = multiclass_nms(
        boxes[None],
        scores[None],
        score_thr=call["score_thr"],
        nms=post.nms,
        max_per_img=post.max_per_img,
        class_agnostic=post.class_agnostic,
        factors=factors,
    )
    assert index[whole.valid].tolist() == outputs["inds"].tolist()

    def decode(prior, label):
        return boxes[prior] if boxes.dim() == 2 else boxes[prior, label]

    batch = ImageBatch.of(torch.zeros(1, 3, 8, 8))
    for detections in (whole, post(scores[None], decode, batch, factors=factors)):
        (found,) = detections.unpad()
        assert found.labels.tolist() == outputs["labels"].tolist()
        close(torch.cat((found.boxes, found.scores[:, None]), 1), outputs["dets"])


@pytest.mark.parametrize("case", cases("mmcv.ops.soft_nms"))
@pytest.mark.parametrize("compiling", [False, True])
def test_soft_nms(case, compiling, monkeypatch):
    inputs, outputs = read(case, "inputs"), read(case, "outputs")
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    boxes, scores = inputs["boxes"], inputs["scores"]
    left = SoftNMS(**case["call"])(boxes[None], scores[None], torch.zeros(1, len(boxes), dtype=torch.int64))
    order = left.scores[0].masked_fill(~left.kept[0], -1).argsort(descending=True, stable=True)
    order = order[: int(left.kept.sum())]
    assert order.tolist() == outputs["inds"].tolist()
    close(torch.cat((boxes[order], left.scores[0, order, None]), 1), outputs["dets"])


@pytest.mark.parametrize("case", cases("fast_nms"))
def test_fast_nms(case):
    inputs, outputs, call = read(case, "inputs"), read(case, "outputs"), case["call"]
    found, index = multiclass_nms(
        inputs["multi_bboxes"][None],
        inputs["multi_scores"][None, :, :-1],
        score_thr=call["score_thr"],
        nms=FastNMS(iou_threshold=call["iou_thr"], top_k=call["top_k"]),
        max_per_img=call["max_num"] if call["max_num"] > 0 else None,
    )
    (image,) = found.unpad()
    close(torch.cat((image.boxes, image.scores[:, None]), 1), outputs["dets"])
    assert image.labels.tolist() == outputs["classes"].tolist()
    prior = index[found.valid] // (inputs["multi_scores"].shape[1] - 1)
    assert torch.equal(inputs["multi_coeffs"][prior], outputs["coeffs"])


@pytest.mark.parametrize("case", cases("mask_matrix_nms"))
def test_mask_matrix_nms(case):
    inputs, outputs, call = read(case, "inputs"), read(case, "outputs"), dict(case.get("call") or {})
    most = call.pop("max_num", -1)
    if call.get("filter_thr", -1) <= 0:
        call.pop("filter_thr", None)
    areas = inputs["mask_area"][None] if "mask_area" in inputs else None
    left = mask_matrix_nms(
        inputs["masks"][None], inputs["scores"][None], inputs["labels"][None], areas=areas, **call
    )
    order = left.scores[0].masked_fill(~left.kept[0], -1).argsort(descending=True, stable=True)
    order = order[: int(left.kept.sum())]
    order = order[:most] if most > 0 else order
    assert order.tolist() == outputs["keep_inds"].tolist()
    assert inputs["labels"][order].tolist() == outputs["labels"].tolist()
    close(left.scores[0, order], outputs["scores"])


@pytest.mark.parametrize("case", cases("mmcv.ops.nms_match"))
def test_nms_match(case):
    inputs, outputs = read(case, "inputs"), read(case, "outputs")
    scores = inputs["scores"][None]
    leader, valid = nms_match(
        inputs["boxes"][None], scores, torch.zeros_like(scores, dtype=torch.int64), **case["call"]
    )
    assert valid.all()
    for group in outputs["groups"]:
        assert set((leader[0] == group[0]).nonzero()[:, 0].tolist()) == set(group.tolist())
    assert sum(len(group) for group in outputs["groups"]) == leader.shape[1]


# -------------------------------------------------------------------------------------------------- merging


def versions(case):
    """The versions of one image, as the case's metas describe them."""
    for meta in case["call"]["img_metas"]:
        height, width = meta["img_shape"]
        across = meta["flip"] and meta["flip_direction"] in ("horizontal", "diagonal")
        down = meta["flip"] and meta["flip_direction"] in ("vertical", "diagonal")
        x, y = meta["scale_factor"][:2]
        original = (round(height / y), round(width / x))
        geometry = ImageGeometry(original, scale=(x, y), flip=(across, down))
        yield ImageBatch.of(torch.zeros(1, 3, height, width), geometry=[geometry])


@pytest.mark.parametrize("case", cases("merge_aug_bboxes"))
def test_merge_boxes(case):
    inputs, outputs = read(case, "inputs"), read(case, "outputs")
    close(average_boxes([b[None] for b in inputs["aug_bboxes"]], list(versions(case)))[0], outputs["bboxes"])
    if "aug_scores" in inputs:
        close(average_scores(list(inputs["aug_scores"])), outputs["scores"])


@pytest.mark.parametrize("case", cases("merge_aug_scores"))
def test_merge_scores(case):
    close(average_scores(list(read(case, "inputs")["aug_scores"])), read(case, "outputs")["scores"])


@pytest.mark.parametrize("case", cases("merge_aug_results"))
def test_merge_results(case):
    inputs, outputs = read(case, "inputs"), read(case, "outputs")
    pairs = zip(inputs["aug_bboxes"], versions(case), strict=True)
    close(torch.cat([boxes_to_original(boxes[None], batch)[0] for boxes, batch in pairs]), outputs["bboxes"])
    close(torch.cat(list(inputs["aug_scores"])), outputs["scores"])


@pytest.mark.parametrize("case", cases("merge_aug_proposals"))
def test_merge_proposals(case):
    inputs, outputs, settings = read(case, "inputs"), read(case, "outputs"), case["call"]["cfg"]
    post = translated(settings, level_nms)
    proposals = [
        Proposals(rows[None, :, :4], rows[None, :, 4], torch.ones(1, len(rows), dtype=torch.bool))
        for rows in inputs["aug_proposals"]
    ]
    merged = merge_proposals(proposals, list(versions(case)), nms=post.nms, max_per_img=post.max_per_img)
    rows = torch.cat((merged.boxes, merged.scores[..., None]), -1)[merged.valid]
    close(rows, outputs["proposals"])


@pytest.mark.parametrize("case", cases("merge_aug_masks", "mmdet2.28.2 merge_aug_masks"))
def test_merge_masks(case):
    masks, call = read(case, "inputs")["aug_masks"], case["call"]
    if "img_metas" in call:
        batches = list(versions(case))
    else:
        flip = (bool(call["img_meta"]["flip"]), False)
        geometry = [ImageGeometry((8, 8), flip=flip)]
        batches = [ImageBatch.of(torch.zeros(1, 3, 8, 8), geometry=geometry)] * len(masks)
    merged = average_masks([own[None] for own in masks], batches, call.get("weights"))[0]
    if case.get("raises"):  # the reference cannot flip; a flip is a flip
        close(merged, torch.stack(list(masks)).mean(0).flip(-1))
    else:
        close(merged, read(case, "outputs")["masks"])


@pytest.mark.parametrize("case", cases("weighted_boxes_fusion"))
def test_weighted_boxes_fusion(case):
    inputs, outputs = read(case, "inputs"), read(case, "outputs")
    models = [
        Detections(boxes[None], scores[None], labels[None], torch.ones(1, len(scores), dtype=torch.bool))
        for boxes, scores, labels in zip(
            inputs["bboxes_list"], inputs["scores_list"], inputs["labels_list"], strict=True
        )
    ]
    call = dict(case.get("call") or {})
    (found,) = weighted_boxes_fusion(models, **call).unpad()
    weights = call.pop("weights", None)
    part = WeightedBoxesFusion(**call)(models, weights=weights, max_per_img=max(1, len(found)))
    close(part.boxes[part.valid], found.boxes)
    close(part.scores[part.valid], found.scores)
    assert found.labels.tolist() == outputs["labels"].tolist()
    close(found.boxes, outputs["bboxes"].reshape(-1, 4))
    close(found.scores, outputs["scores"])


def test_all_cases_run():
    """Every family of cases has a test here."""
    tested = {
        id_
        for name, test in globals().items()
        if name.startswith("test_")
        for mark in getattr(test, "pytestmark", [])
        if mark.args and mark.args[0] == "case"
        for id_ in (param.id for param in mark.args[1])
    }
    assert {case["id"] for case in task_cases("post")} == tested


# ---------------------------------------------------------------------------------------------------- plain


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
