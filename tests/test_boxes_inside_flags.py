import pytest
import torch

from detcore.boxes import inside_flags

BOXES = torch.tensor(
    [[0.0, 0.0, 9.0, 9.0], [-1.0, 0.0, 9.0, 9.0], [0.0, 0.0, 20.0, 10.0], [0.0, 0.0, 9.0, 10.0]]
)
SIZES = torch.tensor([[10, 20], [11, 21]])  # (h, w)


def test_left_and_top_are_inclusive_right_and_bottom_exclusive():
    assert inside_flags(BOXES, SIZES).tolist() == [[True, False, False, False], [True, False, True, True]]


@pytest.mark.parametrize(
    ("border", "expected"), [(1, [True, True, True, True]), (0.5, [True, False, True, True])]
)
def test_border_widens_every_side(border, expected):
    assert inside_flags(BOXES, SIZES[:1], border)[0].tolist() == expected


def test_negative_border_allows_all():
    assert inside_flags(BOXES - 1e4, SIZES, -1).all()
    assert inside_flags(BOXES, SIZES, -1).shape == (2, 4)


def test_priors_by_image_equal_singles():
    priors = torch.stack((BOXES, BOXES.flip(0) + 1))
    together = inside_flags(priors, SIZES)
    assert together.equal(torch.cat([inside_flags(p, s[None]) for p, s in zip(priors, SIZES, strict=True)]))


@pytest.mark.parametrize("border", [-1, 0])
def test_no_priors(border):
    assert inside_flags(BOXES[:0], SIZES, border).shape == (2, 0)
    assert inside_flags(BOXES[:0].expand(2, 0, 4), SIZES, border).shape == (2, 0)
