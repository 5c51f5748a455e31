import math

import pytest
import torch
from detcore_coders import LegacyDeltaXYWHBBoxCoder

from detcore.errors import ConfigError

ANCHOR = [[10.0, 20.0, 29.0, 59.0]]  # the last pixels belong to it: 20 x 40


def test_by_hand(priors):
    box = torch.tensor([[12.0, 24.0, 51.0, 43.0]])  # 40 x 20
    codes = LegacyDeltaXYWHBBoxCoder().encode(priors(ANCHOR), box).values
    torch.testing.assert_close(codes, torch.tensor([[12 / 20, -6 / 40, math.log(2), math.log(0.5)]]))
    torch.testing.assert_close(LegacyDeltaXYWHBBoxCoder().decode(priors(ANCHOR), codes), box)


def test_the_reference_leaves_half_a_pixel_on_each_side(priors):
    coder = LegacyDeltaXYWHBBoxCoder(exact_decode=False)
    found = coder.decode(priors(ANCHOR), torch.zeros(1, 4))
    assert found.tolist() == [[9.5, 19.5, 29.5, 59.5]]


def test_clips_at_the_last_pixel(priors):
    found = LegacyDeltaXYWHBBoxCoder().decode(priors(ANCHOR), torch.zeros(1, 4), torch.tensor([50, 25]))
    assert found.tolist() == [[10, 20, 24, 49]]


def test_sides_change_by_a_bounded_factor(priors):
    coder = LegacyDeltaXYWHBBoxCoder(wh_ratio_clip=0.5)
    found = coder.decode(priors(ANCHOR), torch.tensor([[0.0, 0, 9, -9]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, 30, 39, 49]]))


def test_a_single_pixel_has_an_extent(priors):
    codes = LegacyDeltaXYWHBBoxCoder(empty_size=0).encode(priors(ANCHOR), torch.tensor([[12.0, 24, 12, 24]]))
    assert codes.values.isfinite().all()


@pytest.mark.parametrize(("empty_size", "expected"), [(1.0, math.log(1 / 20)), (0, -math.inf)])
def test_boxes_without_any_pixel(priors, empty_size, expected):
    coder = LegacyDeltaXYWHBBoxCoder(empty_size=empty_size)
    code = coder.encode(priors(ANCHOR), torch.tensor([[12.0, 24, 11, 43]])).values[0, 2]
    assert code.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"target_stds": (0.1, 0.1, 0, 0.2)}, r"target_stds.2: input should be greater than 0; got 0"),
        ({"add_ctr_clamp": True}, r"unknown parameter 'add_ctr_clamp'"),
    ],
)
def test_messages(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        LegacyDeltaXYWHBBoxCoder(**kwargs)
