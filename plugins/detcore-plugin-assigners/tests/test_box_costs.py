"""BBoxL1Cost and IoUCost."""

import pytest
import torch
from detcore_assigners import BBoxL1Cost, IoUCost
from torchvision.ops import box_iou, generalized_box_iou

from detcore.errors import ConfigError
from detcore.structures import ImageBatch, Predictions, Targets


def boxes(*shape, seed=0):
    corners = torch.rand(2, *shape, 2, generator=torch.Generator().manual_seed(seed)) * 60
    return torch.cat((corners.amin(0), corners.amax(0) + 1), dim=-1)


def scene(predicted, gts):
    images, rows = gts.shape[:2]
    flags = torch.ones(images, rows, dtype=torch.bool)
    targets = Targets(gts, flags.long(), flags, ~flags)
    return Predictions(torch.zeros(*predicted.shape[:2], 3), predicted), targets


def test_l1_in_parts_of_each_image():
    predictions, targets = scene(boxes(2, 5), boxes(2, 3, seed=1))
    batch = ImageBatch.of(torch.zeros(2, 3, 64, 128), sizes=[(50, 100), (64, 30)])
    got = BBoxL1Cost(weight=5.0).cost(predictions, targets, batch)
    assert got.shape == (2, 5, 3)
    for i, (height, width) in enumerate([(50, 100), (64, 30)]):
        for n in range(5):
            for m in range(3):
                apart = (predictions.boxes[i, n] - targets.boxes[i, m]).abs()
                expected = (apart / torch.tensor([width, height, width, height])).sum() * 5
                torch.testing.assert_close(got[i, n, m], expected)


def test_l1_of_centre_and_extent():
    predictions, targets = scene(
        torch.tensor([[[0.0, 0.0, 10.0, 20.0]]]), torch.tensor([[[10.0, 0.0, 40.0, 20.0]]])
    )
    batch = ImageBatch.of(torch.zeros(1, 3, 100, 200))
    assert BBoxL1Cost(box_format="xywh").cost(predictions, targets, batch).item() == pytest.approx(
        20 / 200 + 0 + 20 / 200 + 0
    )
    assert BBoxL1Cost().cost(predictions, targets, batch).item() == pytest.approx(10 / 200 + 30 / 200)


@pytest.mark.parametrize("mode", ["giou", "iou", "iof"])
def test_overlaps_as_by_torchvision(mode):
    predictions, targets = scene(boxes(2, 5), boxes(2, 3, seed=1))
    got = IoUCost(iou_mode=mode, weight=2.0).cost(predictions, targets)
    for i in range(2):
        a, b = predictions.boxes[i], targets.boxes[i]
        if mode == "giou":
            expected = generalized_box_iou(a, b)
        else:
            expected = box_iou(a, b)
        if mode == "iof":
            area_a, area_b = ((x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]) for x in (a, b))
            expected = expected / (1 + expected) * (area_a[:, None] + area_b) / area_a[:, None]
        torch.testing.assert_close(got[i], -2 * expected)


def test_boxes_without_extent_cost_what_is_finite():
    point = torch.tensor([[[5.0, 5.0, 5.0, 5.0], [9.0, 9.0, 3.0, 3.0]]])
    predictions, targets = scene(point, point)
    batch = ImageBatch.of(torch.zeros(1, 3, 64, 64))
    for cost in (IoUCost(), IoUCost(iou_mode="iou"), IoUCost(iou_mode="iof"), BBoxL1Cost()):
        assert cost.cost(predictions, targets, batch).isfinite().all()


def test_no_predictions():
    predictions, targets = scene(torch.zeros(2, 0, 4), boxes(2, 3))
    batch = ImageBatch.of(torch.zeros(2, 3, 64, 64))
    for cost in (IoUCost(), BBoxL1Cost(box_format="xywh")):
        assert cost.cost(predictions, targets, batch).shape == (2, 0, 3)


def test_errors():
    with pytest.raises(ConfigError, match=r"box_format: .*'xyxy' or 'xywh'.*got 'cxcywh'"):
        BBoxL1Cost(box_format="cxcywh")
    with pytest.raises(ConfigError, match=r"iou_mode: .*got 'diou'"):
        IoUCost(iou_mode="diou")
    with pytest.raises(ConfigError, match=r"weight: .*greater than or equal to 0; got -1"):
        IoUCost(weight=-1)
    predictions, targets = scene(boxes(1, 2), boxes(1, 2))
    with pytest.raises(ValueError, match="got batch=None; pass the ImageBatch"):
        BBoxL1Cost().cost(predictions, targets)
