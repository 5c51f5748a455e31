"""Mergers: one set of detections from several views."""

import pytest
import torch
from detcore_postprocess import NMS, FastNMS, MatrixNMS, NMSMerger, SoftNMS, WeightedBoxesFusion
from detcore_postprocess.contained import smaller_overlap

from detcore.errors import ConfigError
from detcore.structures import Detections


def view(*rows, masks=None):
    """Detections of one image from (box, score, label)."""
    boxes = torch.tensor([[box for box, _, _ in rows]]).reshape(1, len(rows), 4).float()
    scores = torch.tensor([[score for _, score, _ in rows]]).float().reshape(1, len(rows))
    labels = torch.tensor([[label for *_, label in rows]], dtype=torch.int64).reshape(1, len(rows))
    return Detections(boxes, scores, labels, torch.ones_like(labels, dtype=torch.bool), masks=masks)


A, NEAR_A, PART_OF_A, B = [0, 0, 40, 40], [0, 0, 40, 38], [0, 0, 40, 12], [60, 60, 90, 90]


@pytest.mark.parametrize("nms", [NMS, SoftNMS, FastNMS, MatrixNMS])
def test_any_suppression_merges(nms):
    found = NMSMerger(nms=nms.spec())([view((A, 0.9, 0), (B, 0.3, 1)), view((NEAR_A, 0.8, 0))], max_per_img=5)
    assert found.boxes[0, 0].tolist() == A
    assert found.scores[0, 0] == pytest.approx(0.9)
    assert B in found.boxes[0].tolist()
    repeated = [s for box, s in zip(found.boxes[0].tolist(), found.scores[0], strict=True) if box == NEAR_A]
    assert not repeated or repeated[0] < 0.5


def test_classes_are_apart_unless_told():
    views = [view((A, 0.9, 0)), view((NEAR_A, 0.8, 1))]
    assert int(NMSMerger()(views, max_per_img=5).valid.sum()) == 2
    assert int(NMSMerger(class_agnostic=True)(views, max_per_img=5).valid.sum()) == 1


def test_parts_are_dropped_by_the_share_of_the_smaller():
    views = [view((A, 0.9, 0), (B, 0.2, 0)), view((PART_OF_A, 0.8, 0))]
    assert int(NMSMerger()(views, max_per_img=5).valid.sum()) == 3
    found = NMSMerger(nms=NMS.spec(overlap="ios"))(views, max_per_img=5)
    assert found.boxes[0, :2].tolist() == [A, B]
    assert int(found.valid.sum()) == 2
    assert smaller_overlap(torch.tensor(A).float(), torch.tensor(PART_OF_A).float()) == 1
    assert smaller_overlap(torch.zeros(4), torch.zeros(4)) == 0


@pytest.mark.parametrize("seed", range(5))
def test_share_of_the_smaller_equals_plain_loops(seed, scene):
    boxes, scores = scene(seed, images=2, priors=30)
    scores, groups = scores[..., 0], (scores[..., 1] > 0.5).long()
    valid = scores > 0.2
    kept = NMS(overlap="ios", iou_threshold=0.4)(boxes, scores, groups, valid=valid, most=7).kept
    for b in range(2):
        expected = []
        for i in sorted(range(30), key=lambda i: (-float(scores[b, i]), i)):
            rivals = [j for j in expected if groups[b, j] == groups[b, i]]
            if valid[b, i] and all(smaller_overlap(boxes[b, i], boxes[b, j]) <= 0.4 for j in rivals):
                expected.append(i)
        assert kept[b].nonzero()[:, 0].tolist() == sorted(expected)


@pytest.mark.reliability(
    area="test-time",
    fault="views with masks of different sizes, or without",
    outcome="merged without masks; masks that agree are kept with their boxes",
)
def test_masks_come_along_where_all_views_have_them():
    low, high = torch.rand(1, 1, 4, 4), torch.rand(1, 1, 4, 4)
    views = [view((B, 0.5, 0), masks=low), view((A, 0.9, 0), masks=high)]
    found = NMSMerger()(views, max_per_img=3)
    assert torch.equal(found.masks[0, :2], torch.cat((high, low))[:, 0])
    assert NMSMerger()([views[0], view((A, 0.9, 0))], max_per_img=3).masks is None
    other = view((A, 0.9, 0), masks=torch.rand(1, 1, 8, 8))
    assert NMSMerger()([views[0], other], max_per_img=3).masks is None
    assert WeightedBoxesFusion()(views, max_per_img=3).masks is None


def test_weights():
    views = [view((A, 0.8, 0)), view((B, 0.8, 0))]
    found = NMSMerger()(views, max_per_img=2, weights=(1.0, 2.0))
    assert found.boxes[0].tolist() == [B, A]
    assert found.scores[0].tolist() == pytest.approx([0.8, 0.4])
    fused = WeightedBoxesFusion(conf_type="max")(views, max_per_img=2, weights=(1.0, 2.0))
    assert fused.scores[0].tolist() == pytest.approx([0.8, 0.4])


@pytest.mark.parametrize("merger", [NMSMerger(), WeightedBoxesFusion()])
@pytest.mark.parametrize(
    ("count", "weights"), [(0, None), (2, (1.0,)), (2, (1.0, -1.0)), (2, (1.0, float("nan")))]
)
def test_weights_are_checked(merger, count, weights):
    views = [view((A, 0.8, 0))] * count
    with pytest.raises(ConfigError, match=f"one positive number for each of {count} (views|models)"):
        merger(views, max_per_img=2, weights=weights)


def test_parameters_of_fusion_arrive():
    views = [view((A, 0.8, 0), (B, 0.1, 0)), view((NEAR_A, 0.4, 0))]
    found = WeightedBoxesFusion(skip_box_thr=0.2, conf_type="max")(views, max_per_img=4)
    assert found.scores[0].tolist() == pytest.approx([0.8, 0, 0, 0])
    assert found.boxes[0, 0].tolist() == pytest.approx([0, 0, 40, 40 - 2 / 3])
    assert int(WeightedBoxesFusion(iou_thr=0.97)(views, max_per_img=4).valid.sum()) == 3
    once = WeightedBoxesFusion(allows_overflow=True)([view((A, 0.9, 0), (A, 0.9, 0))], max_per_img=1)
    assert once.scores.item() == pytest.approx(1.8)
