import math

import pytest
import torch
from detcore_coders import YOLOBBoxCoder

from detcore import build, dump
from detcore.errors import ConfigError
from detcore.structures import Priors

ANCHOR = torch.tensor([[0.0, -10, 32, 42]])  # around the middle of the cell 0..32 in x and y, 32 x 52


def at(boxes, stride=32.0):
    return Priors(boxes, torch.full((boxes.shape[-2], 2), stride))


def test_by_hand():
    coder, box = YOLOBBoxCoder(), torch.tensor([[4.0, 11, 20, 37]])  # centre (12, 24), 16 x 26
    codes = coder.encode(at(ANCHOR), box).values
    torch.testing.assert_close(codes, torch.tensor([[12 / 32, 24 / 32, math.log(0.5), math.log(0.5)]]))
    torch.testing.assert_close(coder.decode(at(ANCHOR), codes), box)


def test_strides_may_differ_in_x_and_y():
    codes = YOLOBBoxCoder().encode(
        Priors(ANCHOR, torch.tensor([[32.0, 64]])), torch.tensor([[4.0, 11, 20, 37]])
    )
    torch.testing.assert_close(codes.values[0, :2], torch.tensor([12 / 32, 0.5 + 8 / 64]))


def test_objects_of_other_cells_are_kept_at_the_edge_of_this_one():
    codes = YOLOBBoxCoder(eps=0.01).encode(at(ANCHOR), torch.tensor([[100.0, -90, 120, -70]])).values
    torch.testing.assert_close(codes[0, :2], torch.tensor([0.99, 0.01]))


def test_boxes_in_their_cell_come_back(boxes):
    anchors = at(boxes(50))
    size = boxes(50, seed=1)[:, 2:] / 2
    center = anchors.centers + (torch.rand(50, 2) - 0.5) * 31
    given = torch.cat((center - size, center + size), -1)
    coder = YOLOBBoxCoder()
    torch.testing.assert_close(coder.decode(anchors, coder.encode(anchors, given).values), given)


def test_batches_equal_singles(boxes):
    anchors, images, coder = at(boxes(5)), boxes(3, 5, seed=1), YOLOBBoxCoder()
    sizes = torch.tensor([[30, 50], [60, 20], [90, 90]])
    together = coder.encode(anchors, images).values
    singles = [coder.encode(anchors, image).values for image in images]
    assert together.equal(torch.stack(singles))
    decoded = [coder.decode(anchors, c, s) for c, s in zip(singles, sizes, strict=True)]
    assert coder.decode(anchors, together, sizes).equal(torch.stack(decoded))


def test_clipping(boxes):
    anchors, codes = at(boxes(20)), torch.rand(20, 4)
    size = torch.tensor([60, 40])
    free = YOLOBBoxCoder(clip_border=False).decode(anchors, codes, size)
    assert free.equal(YOLOBBoxCoder().decode(anchors, codes))
    limits = torch.tensor([40, 60, 40, 60])
    assert YOLOBBoxCoder().decode(anchors, codes, size).equal(free.clamp(min=0).minimum(limits))


@pytest.mark.parametrize("shape", [(0,), (2, 0)])
def test_empty(boxes, shape):
    anchors = at(boxes(0))
    assert YOLOBBoxCoder().encode(anchors, boxes(*shape)).values.shape == (*shape, 4)
    assert YOLOBBoxCoder().decode(anchors, torch.zeros(*shape, 4)).shape == (*shape, 4)


def test_degenerate_boxes_priors_and_strides_stay_finite():
    every = torch.tensor([[0.0, 0, 0, 0], [10, 20, 10, 40], [30, 40, 10, 20]], requires_grad=True)
    for stride in (0.0, 8.0):
        anchors = Priors(every[:, None], torch.full((1, 2), stride))
        codes = YOLOBBoxCoder().encode(anchors, every).values
        (codes.sum() + YOLOBBoxCoder().decode(anchors, codes).sum()).backward()
        assert codes.isfinite().all()
        assert every.grad.isfinite().all()


def test_gradients(boxes):
    anchors = at(boxes(3, dtype=torch.float64)).replace(
        strides=torch.full((3, 2), 500.0, dtype=torch.float64)
    )
    codes = torch.rand(2, 3, 4, dtype=torch.float64, requires_grad=True)
    targets = boxes(2, 3, seed=1, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: YOLOBBoxCoder().decode(anchors, c), codes)
    assert torch.autograd.gradcheck(lambda b: YOLOBBoxCoder().encode(anchors, b).values, targets)


def test_config_round_trip():
    assert build(dump(YOLOBBoxCoder(eps=0.01))).eps == 0.01


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"eps": 0}, r"eps: input should be greater than 0; got 0"),
        ({"eps": 0.5}, r"eps: input should be less than 0.5; got 0.5"),
    ],
)
def test_messages(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        YOLOBBoxCoder(**kwargs)


def test_codes_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"codes should have shape \[..., 4\], got \[1, 5\]"):
        YOLOBBoxCoder().decode(at(ANCHOR), torch.zeros(1, 5))
