"""Merging of versions of an image, and fusion of boxes."""

import pytest
import torch
from detcore_postprocess import (
    NMS,
    SoftNMS,
    WeightedBoxesFusion,
    average_boxes,
    average_masks,
    average_scores,
    best_detections,
    boxes_to_original,
    merge_detections,
    merge_proposals,
    weighted_boxes_fusion,
)
from torchvision.ops import box_iou

from detcore.errors import ConfigError
from detcore.structures import Detections, ImageBatch, ImageGeometry, Proposals


def versions():
    """Two images of 40 x 60: as they are, twice as large and mirrored, cut and upside down."""
    plain = ImageBatch.of(torch.zeros(2, 3, 40, 60))
    twice = ImageGeometry((40, 60), scale=(2.0, 2.0), flip=(True, False))
    cut = ImageGeometry((40, 60), origin=(10.0, 5.0), flip=(False, True))
    return [
        plain,
        ImageBatch.of(torch.zeros(2, 3, 80, 128), sizes=[(80, 120)] * 2, geometry=[twice] * 2),
        ImageBatch.of(torch.zeros(2, 3, 30, 40), geometry=[cut] * 2),
    ]


HOME = torch.tensor([[[12.0, 8.0, 30.0, 25.0], [15.0, 10.0, 20.0, 30.0]], [[20.0, 6.0, 45.0, 33.0]] * 2])


def seen():
    """The same boxes in each version."""
    x1, y1, x2, y2 = HOME.unbind(-1)
    return [
        HOME,
        torch.stack((120 - 2 * x2, 2 * y1, 120 - 2 * x1, 2 * y2), -1),
        torch.stack((x1 - 10, 30 - (y2 - 5), x2 - 10, 30 - (y1 - 5)), -1),
    ]


def found(boxes, scores=None, labels=None, valid=None, **more):
    count = boxes.shape[:2]
    return Detections(
        boxes,
        torch.full(count, 0.5) if scores is None else scores,
        torch.zeros(count, dtype=torch.int64) if labels is None else labels,
        torch.ones(count, dtype=torch.bool) if valid is None else valid,
        **more,
    )


def test_boxes_come_home():
    for boxes, batch in zip(seen(), versions(), strict=True):
        torch.testing.assert_close(boxes_to_original(boxes, batch), HOME)
        torch.testing.assert_close(boxes_to_original(boxes[:, None], batch), HOME[:, None])
        torch.testing.assert_close(found(boxes).to_original(batch).boxes, HOME)


def test_averages():
    torch.testing.assert_close(average_boxes(seen(), versions()), HOME)
    moved = [seen()[0] + 3, *seen()[1:]]
    torch.testing.assert_close(average_boxes(moved, versions()), HOME + 1)
    assert average_scores([torch.tensor([[0.2]]), torch.tensor([[0.6]])]).item() == pytest.approx(0.4)
    masks = torch.rand(2, 3, 4, 5)
    flipped = [masks, masks.flip(-1), masks.flip(-2)]
    torch.testing.assert_close(average_masks(flipped, versions()), masks)
    weighted = average_masks([masks, 0 * masks, 0 * masks], versions(), [1.0, 2.0, 1.0])
    torch.testing.assert_close(weighted, masks / 4)


def test_averages_are_checked():
    with pytest.raises(ConfigError, match="one batch for each; got 1 results and 3 batches"):
        average_boxes(seen()[:1], versions())
    with pytest.raises(ConfigError, match="at least one version"):
        average_scores([])
    with pytest.raises(ConfigError, match=r"weights should be 3 numbers.*got \[1.0, -1.0, 1.0\]"):
        average_masks([torch.zeros(2, 1, 1)] * 3, versions(), [1.0, -1.0, 1.0])


def test_proposals():
    """The same region of all versions once, the best score first; padding stays out."""
    scores = [torch.tensor([[0.3, 0.2], [0.6, 0.1]]) + step / 100 for step in range(3)]
    valid = torch.tensor([[True, True], [True, False]])
    rows = [Proposals(boxes, own, valid) for boxes, own in zip(seen(), scores, strict=True)]
    merged = merge_proposals(rows, versions(), nms=NMS(iou_threshold=0.7), max_per_img=5)
    assert merged.boxes.shape == (2, 5, 4)
    assert merged.valid.sum(1).tolist() == [2, 1]
    assert merged.scores[0, :2].tolist() == pytest.approx([0.32, 0.22])
    torch.testing.assert_close(merged.boxes[0, :2], HOME[0])
    assert not merged.boxes[~merged.valid].any()
    none = [Proposals(torch.zeros(2, 0, 4), torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.bool))] * 3
    assert not merge_proposals(none, versions(), nms=NMS(), max_per_img=4).valid.any()


@pytest.mark.parametrize("nms", [NMS(), SoftNMS(method="gaussian", sigma=0.01, min_score=0.05)])
def test_detections(nms):
    masks = torch.rand(2, 2, 4, 5)
    labels = torch.tensor([[0, 1], [2, 2]])
    valid = torch.tensor([[True, True], [True, False]])
    flipped = [masks, masks.flip(-1), masks.flip(-2)]
    rows = [
        found(boxes, torch.full((2, 2), 0.5 + step / 10), labels, valid, masks=own)
        for step, (boxes, own) in enumerate(zip(seen(), flipped, strict=True))
    ]
    merged = merge_detections(rows, versions(), nms=nms, max_per_img=4)
    assert merged.valid.sum(1).tolist() == [2, 1]
    assert merged.labels[0, :2].tolist() == [0, 1]
    assert merged.scores[merged.valid].tolist() == pytest.approx([0.7] * 3)
    torch.testing.assert_close(merged.masks[0, :2], masks[0])
    assert [len(image.masks) for image in merged.unpad()] == [2, 1]
    rows[0] = rows[0].replace(masks=None)
    assert merge_detections(rows, versions(), nms=nms, max_per_img=4).masks is None
    agnostic = merge_detections(
        rows, versions(), nms=NMS(iou_threshold=0.1), max_per_img=4, class_agnostic=True
    )
    assert agnostic.valid.sum(1).tolist() == [1, 1]


def test_best_of_none():
    assert best_detections(found(torch.zeros(2, 0, 4)), 3).boxes.shape == (2, 3, 4)


# ---------------------------------------------------------------------------------------------------- fusion


def confidence(kind, cluster, models, weights):
    """A cluster's score, from [(weighted score, model, label, box)]."""
    total, n = sum(s for s, *_ in cluster), len(cluster)
    present = {t for _, t, *_ in cluster}
    taking_part = sum(weights[t] for t in present)
    if kind == "max":
        return max(s for s, *_ in cluster) / max(weights)
    if kind == "box_and_model_avg":
        return total / sum(weights[t] for _, t, *_ in cluster) * taking_part / sum(weights)
    if kind == "absent_model_aware_avg":
        return total / (sum(weights[t] for _, t, *_ in cluster) + sum(weights) - taking_part)
    return total / n * min(len(models), n) / sum(weights)  # the paper's, equation 5


def fused(models, weights, iou_thr, skip, kind="avg"):
    """One image in plain loops, as section 3 of the paper has it: [(score, label, box)]."""
    rows = [
        (float(s) * w, t, int(k), b.double())
        for t, (own, w) in enumerate(zip(models, weights, strict=True))
        for b, s, k, v in zip(own.boxes[0], own.scores[0], own.labels[0], own.valid[0], strict=True)
        if v and s >= skip
    ]
    clusters = []
    for row in sorted(rows, key=lambda row: -row[0]):
        means = [sum(s * b for s, _, _, b in c) / sum(s for s, *_ in c) for c in clusters]
        ious = [
            float(box_iou(mean[None], row[3][None])) if c[0][2] == row[2] else -1.0
            for mean, c in zip(means, clusters, strict=True)
        ]
        if ious and max(ious) > iou_thr:
            clusters[ious.index(max(ious))].append(row)
        else:
            clusters.append([row])
    result = []
    for c in clusters:
        total = sum(s for s, *_ in c)
        score = confidence(kind, c, models, weights)
        result.append((score, c[0][2], sum(s * b for s, _, _, b in c) / total))
    return sorted(result, key=lambda row: -row[0])


def models_of(seed, images=1, count=12):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(3):
        corners = torch.rand(images, count, 2, generator=generator) * 30
        boxes = torch.cat(
            (corners, corners + 10 + torch.rand(images, count, 2, generator=generator) * 20), -1
        )
        yield found(
            boxes,
            torch.rand(images, count, generator=generator),
            torch.randint(0, 2, (images, count), generator=generator),
            torch.rand(images, count, generator=generator) > 0.2,
        )


@pytest.mark.parametrize("kind", ["avg", "max", "box_and_model_avg", "absent_model_aware_avg"])
@pytest.mark.parametrize("seed", range(6))
def test_fusion_equals_plain_loops(seed, kind):
    models, weights = list(models_of(seed)), [1.0, 2.0, 0.5]
    expected = fused(models, weights, 0.4, 0.1, kind)
    fusion = WeightedBoxesFusion(iou_thr=0.4, skip_box_thr=0.1, conf_type=kind)
    (image,) = fusion(models, weights=weights, max_per_img=36).unpad()
    assert image.labels.tolist() == [label for _, label, _ in expected]
    assert image.scores.tolist() == pytest.approx([score for score, *_ in expected])
    torch.testing.assert_close(image.boxes, torch.stack([box for *_, box in expected]).float())


@pytest.mark.parametrize("kind", ["avg", "max", "box_and_model_avg", "absent_model_aware_avg"])
def test_fusion_of_a_batch_equals_singles(kind):
    models = list(models_of(7, images=3))
    models[0].valid[1] = False
    for model in models:
        model.valid[2] = False
    together = weighted_boxes_fusion(models, conf_type=kind, max_per_img=40)
    assert together.boxes.shape == (3, 40, 4)
    assert not together.valid[2].any()
    for b in range(3):
        own = [
            found(m.boxes[b : b + 1], m.scores[b : b + 1], m.labels[b : b + 1], m.valid[b : b + 1])
            for m in models
        ]
        alone = weighted_boxes_fusion(own, conf_type=kind, max_per_img=40)
        for name in ("boxes", "scores", "labels", "valid"):
            torch.testing.assert_close(getattr(together, name)[b], getattr(alone, name)[0])


def test_models_that_agree():
    """Two of three models see a box: its score is what they say, less the one that does not."""
    one = found(torch.tensor([[[0.0, 0.0, 10.0, 10.0]]]), torch.tensor([[0.9]]))
    other = found(torch.tensor([[[0.0, 0.0, 10.0, 8.0]]]), torch.tensor([[0.3]]))
    none = found(torch.zeros(1, 0, 4))
    fusion = weighted_boxes_fusion([one, other, none])
    assert fusion.boxes.tolist() == [[pytest.approx([0.0, 0.0, 10.0, 9.5])]]
    assert fusion.scores.item() == pytest.approx(0.6 * 2 / 3)
    scores = {
        kind: weighted_boxes_fusion([one, other, none], weights=[2.0, 1.0, 1.0], conf_type=kind).scores.item()
        for kind in ("max", "box_and_model_avg", "absent_model_aware_avg")
    }
    assert scores["max"] == pytest.approx(0.9)
    assert scores["box_and_model_avg"] == pytest.approx(2.1 / 3 * 3 / 4)
    assert scores["absent_model_aware_avg"] == pytest.approx(2.1 / 4)


def test_scores_of_zero_are_fused_too():
    rows = found(torch.tensor([[[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0]]]), torch.zeros(1, 2))
    fusion = weighted_boxes_fusion([rows, rows])
    assert fusion.boxes.tolist() == [[[0.0, 0.0, 10.0, 10.0]]]


def test_nothing_to_fuse():
    assert weighted_boxes_fusion([found(torch.zeros(2, 0, 4))]).boxes.shape == (2, 0, 4)
    assert weighted_boxes_fusion([found(torch.zeros(0, 3, 4))], max_per_img=2).boxes.shape == (0, 2, 4)
    with pytest.raises(ConfigError, match="one positive number for each of 0 models"):
        weighted_boxes_fusion([])
    with pytest.raises(ConfigError, match=r"for each of 1 models, .* got \[1.0, 2.0\]"):
        weighted_boxes_fusion([found(torch.zeros(1, 1, 4))], weights=[1.0, 2.0])
