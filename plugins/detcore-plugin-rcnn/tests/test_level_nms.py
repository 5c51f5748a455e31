"""Suppression within each level."""

import pytest
import torch
from detcore_rcnn import LevelNMSPostprocess

from detcore.errors import ConfigError
from detcore.structures import ImageBatch

BATCH = ImageBatch.of(torch.zeros(1, 3, 64, 64))
BOXES = torch.tensor(
    [[[0, 0, 10, 10], [0, 0, 10, 11], [20, 20, 30, 30], [0, 0, 10, 10], [5, 5, 5, 9]]]
).float()
SCORES = torch.tensor([[[0.5], [0.6], [0.0], [0.9], [0.99]]])


def decode(prior, label):
    return BOXES.gather(1, prior[..., None].expand(-1, -1, 4))


def detect(levels=(3, 2), scores=SCORES, **arguments):
    return LevelNMSPostprocess(**{"max_per_img": 5, **arguments})(scores, decode, BATCH, levels=levels)


def rows(found):
    return found.scores[0][found.valid[0]].tolist()


def test_boxes_suppress_those_of_their_level():
    assert rows(detect()) == pytest.approx([0.9, 0.6, 0.0])


def test_one_level():
    assert rows(detect(levels=())) == pytest.approx([0.9, 0.0])


def test_best_of_each_level():
    assert rows(detect(nms_pre=1)) == pytest.approx([0.6])  # the best of the second level has no width


def test_boxes_without_extent_may_be_kept():
    assert rows(detect(min_bbox_size=None))[0] == pytest.approx(0.99)


def test_larger_boxes_only():
    assert rows(detect(min_bbox_size=10)) == []


def test_no_suppression():
    assert rows(detect(iou_threshold=1.0)) == pytest.approx([0.9, 0.6, 0.5, 0.0])


def test_another_suppression():
    soft = detect(nms={"type": "SoftNMS", "min_score": 0.0})
    assert rows(soft) == pytest.approx([0.9, 0.6, 0.5 * (1 - 100 / 110), 0.0])
    assert LevelNMSPostprocess(iou_threshold=0.6).nms.iou_threshold == 0.6


def test_padding_holds_zeros():
    found = detect(max_per_img=9)
    assert found.boxes.shape == (1, 9, 4)
    assert not found.boxes[~found.valid].any()
    assert not found.scores[~found.valid].any()


def test_no_prior():
    found = LevelNMSPostprocess(max_per_img=3)(torch.zeros(1, 0, 1), None, BATCH)
    assert found.boxes.shape == (1, 3, 4)
    assert not found.valid.any()


def test_factors_and_validity():
    process = LevelNMSPostprocess(max_per_img=5)
    factors = torch.tensor([[1, 0.5, 1, 1, 1]])
    valid = torch.tensor([[True, True, True, False, True]])
    found = process(SCORES, decode, BATCH, levels=(3, 2), factors=factors, valid=valid)
    assert rows(found) == pytest.approx([0.5, 0.0])


def test_levels_that_do_not_add_up():
    with pytest.raises(ConfigError, match="add up to 4 priors"):
        detect(levels=(2, 2))


def test_a_least_score_is_itself_included():
    assert rows(detect(score_thr=0.6)) == pytest.approx([0.9, 0.6])
    assert rows(detect(score_thr=0.61)) == pytest.approx([0.9])
