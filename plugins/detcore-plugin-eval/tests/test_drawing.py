from itertools import pairwise

import pytest
import torch
from detcore_eval.drawing import Drawn, color_of, draw, draw_boxes, side_by_side


def drawn(count=3, *, scores=True):
    boxes = torch.tensor([[10.0, 12, 60, 50], [0, 0, 100, 80], [90, 70, 120, 95], [5, 5, 5, 5]])[:count]
    return Drawn(boxes, torch.arange(count), torch.linspace(0.9, 0.1, count) if scores else None)


@pytest.mark.parametrize("count", [0, 1, 3, 4])
@pytest.mark.parametrize("scores", [True, False])
def test_a_copy_is_drawn_on(count, scores):
    image = torch.zeros(3, 80, 100, dtype=torch.uint8)
    picture = draw(image, drawn(count, scores=scores), ["a", "long name", "c", "d"])
    assert picture.shape == image.shape
    assert picture.dtype == torch.uint8
    assert not image.any()
    assert bool(picture.any()) == (count > 0)


def test_boxes_have_their_classes_colours():
    image = torch.zeros(3, 200, 200, dtype=torch.uint8)
    picture = draw(
        image, Drawn(torch.tensor([[50.0, 60, 150, 160]]), torch.tensor([7])), [str(i) for i in range(9)]
    )
    assert tuple(picture[:, 100, 50].tolist()) == color_of(7)


def test_masks_are_tinted_and_keep_what_lies_beside_them():
    image = torch.full((3, 100, 100), 50, dtype=torch.uint8)
    mask = torch.zeros(1, 100, 100, dtype=torch.bool)
    mask[0, 40:60, 40:60] = True
    found = Drawn(torch.tensor([[20.0, 20, 80, 80]]), torch.tensor([0]), torch.tensor([0.5]), mask)
    picture = draw(image, found, ["a"])
    tint = [round(0.55 * 50 + 0.45 * channel) for channel in color_of(0)]
    assert max(abs(a - b) for a, b in zip(picture[:, 50, 50].tolist(), tint, strict=True)) <= 1
    assert picture[:, 70, 70].tolist() == [50, 50, 50]
    twice = Drawn(found.boxes.repeat(2, 1), found.labels.repeat(2), None, mask.repeat(2, 1, 1))
    assert draw(image, twice, ["a"])[:, 50, 50].tolist() > picture[:, 50, 50].tolist()
    grid = side_by_side([(image, found, found)], ["a"], edge=50)
    assert grid.shape[0] == 3


def test_thousands_of_classes_have_colours_and_neighbours_differ():
    colors = [color_of(label) for label in range(2000)]
    assert all(0 <= channel <= 255 for color in colors for channel in color)
    for one, other in pairwise(colors):
        assert sum(abs(a - b) for a, b in zip(one, other, strict=True)) > 60


@pytest.mark.parametrize("size", [(2, 2), (20, 400), (1000, 700)])
def test_any_size(size):
    image = torch.zeros(3, *size, dtype=torch.uint8)
    assert draw(image, drawn(3), ["a", "b", "c"]).shape == image.shape


def test_pairs():
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    grid = side_by_side([(image, drawn(2, scores=False), drawn(1))] * 5, ["a", "b", "c"], edge=100)
    assert grid.shape[0] == 3
    assert grid.shape[2] > 4 * 100
    assert side_by_side([(image, drawn(0), drawn(0))], ["a"], edge=50).shape[2] < 150


def test_texts_and_colours_are_ones_own():
    image = torch.zeros(3, 60, 90, dtype=torch.uint8)
    boxes = torch.tensor([[20.0, 30, 60, 50], [0, 0, 5, 5]])
    picture = draw_boxes(image, boxes, ["", ""], [(0, 200, 0), (200, 0, 0)])
    assert picture[:, 30, 40].tolist() == [0, 200, 0]
    assert picture[:, 0, 2].tolist() == [200, 0, 0]
    assert not picture[2].any()
    assert draw_boxes(image, boxes, ["missed: \u732b\nx", ""], [(0, 200, 0), (200, 0, 0)])[2].any()
    assert not draw_boxes(image, torch.zeros(0, 4), [], []).any()
