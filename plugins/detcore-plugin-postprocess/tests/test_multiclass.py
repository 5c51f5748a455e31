"""Class-wise suppression of given boxes."""

import pytest
import torch
from detcore_postprocess import multiclass_nms

from detcore.errors import ConfigError


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("with_factors", [False, True])
def test_equals_plain_loops(reference, scene, agnostic, with_factors):
    options = {"nms_pre": None, "min_bbox_size": -1e9, "max_per_img": None, "class_agnostic": agnostic}
    options |= {"score_thr": 0.4, "iou_threshold": 0.3}
    for seed in range(5):
        boxes, scores = scene(seed, priors=15)
        factors = torch.rand(2, 15) if with_factors else None
        detections, index = multiclass_nms(
            boxes, scores, score_thr=0.4, iou_threshold=0.3, class_agnostic=agnostic, factors=factors
        )
        for b, found in enumerate(detections.unpad()):
            own = None if factors is None else factors[b]
            expected = reference.image(boxes[b], scores[b], (15,), options, own)
            assert found.labels.tolist() == [label for _, label, _ in expected]
            assert found.scores.tolist() == pytest.approx([score for score, *_ in expected])
            rows = index[b][detections.valid[b]]
            assert (rows % 3).tolist() == found.labels.tolist()
            torch.testing.assert_close(boxes[b][rows // 3], found.boxes)


def test_boxes_per_class_equal_shared_boxes(scene):
    boxes, scores = scene(7)
    shared, index = multiclass_nms(boxes, scores, score_thr=0.2, iou_threshold=0.5, max_per_img=30)
    own, other = multiclass_nms(
        boxes[:, :, None].expand(-1, -1, 3, -1), scores, score_thr=0.2, iou_threshold=0.5, max_per_img=30
    )
    torch.testing.assert_close(own.boxes, shared.boxes)
    assert torch.equal(index, other)
    moved = boxes[:, :, None] + torch.tensor([0.0, 1000.0, 2000.0])[:, None]
    apart, _ = multiclass_nms(
        moved, scores, score_thr=0.2, iou_threshold=0.5, max_per_img=30, class_agnostic=True
    )
    assert torch.equal(apart.labels, shared.labels)


@pytest.mark.parametrize("limit", [None, 5])
@pytest.mark.parametrize("shape", [(2, 0, 3), (0, 4, 3), (2, 4, 3)])
def test_nothing(limit, shape):
    boxes, scores = torch.zeros(*shape[:2], 4), torch.zeros(shape)
    found, index = multiclass_nms(boxes, scores, score_thr=0.1, iou_threshold=0.5, max_per_img=limit)
    assert found.boxes.shape == (shape[0], limit or 0, 4)
    assert index.shape == (shape[0], limit or 0)
    assert not found.valid.any()


def test_boxes_that_take_no_part(scene):
    boxes, scores = scene(8)
    valid = torch.zeros(2, 40, dtype=torch.bool)
    valid[0, 3] = True
    found, index = multiclass_nms(boxes, scores + 0.1, score_thr=0.0, iou_threshold=0.5, valid=valid)
    assert found.valid.sum(1).tolist() == [3, 0]
    assert set((index[0] // 3).tolist()) == {3}


def test_shapes_are_checked():
    with pytest.raises(
        ConfigError, match=r"boxes should have shape \[1, 5, 4\] or \[1, 5, 3, 4\] .* got \[1, 5, 12\]"
    ):
        multiclass_nms(torch.zeros(1, 5, 12), torch.zeros(1, 5, 3), score_thr=0.1, iou_threshold=0.5)
