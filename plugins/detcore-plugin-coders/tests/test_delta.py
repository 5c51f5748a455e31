import math

import pytest
import torch
from detcore_coders import DeltaXYWHBBoxCoder

from detcore.errors import ConfigError

ANCHOR = [[10.0, 20.0, 30.0, 60.0]]  # centre (20, 40), 20 x 40


def test_encode_by_hand(priors):
    values = DeltaXYWHBBoxCoder().encode(priors(ANCHOR), torch.tensor([[20.0, 30.0, 60.0, 50.0]])).values
    torch.testing.assert_close(values, torch.tensor([[1.0, 0.0, math.log(2), -math.log(2)]]))


def test_means_and_stds_by_hand(priors):
    coder = DeltaXYWHBBoxCoder(target_means=(1, 2, 3, 4), target_stds=(0.1, 0.2, 0.3, 0.4))
    values = coder.encode(priors(ANCHOR), torch.tensor(ANCHOR)).values
    torch.testing.assert_close(values, torch.tensor([[-10.0, -10.0, -10.0, -10.0]]))
    torch.testing.assert_close(coder.decode(priors(ANCHOR), values), torch.tensor(ANCHOR))


@pytest.mark.parametrize("ratio", [16 / 1000, 0.5])
def test_ratios_are_clipped_on_both_sides(priors, ratio):
    codes = torch.tensor([[0.0, 0.0, 99.0, -99.0]])
    x1, y1, x2, y2 = DeltaXYWHBBoxCoder(wh_ratio_clip=ratio).decode(priors(ANCHOR), codes)[0].tolist()
    assert x2 - x1 == pytest.approx(20 / ratio, rel=1e-5)
    assert y2 - y1 == pytest.approx(40 * ratio, rel=1e-5)


def test_clamped_centres(priors):
    coder = DeltaXYWHBBoxCoder(add_ctr_clamp=True, ctr_clamp=5)
    codes = torch.tensor([[9.0, -9.0, 0.0, -99.0], [0.2, -0.1, 99.0, 0.0]])
    boxes = coder.decode(priors(ANCHOR * 2), codes)
    assert ((boxes[:, :2] + boxes[:, 2:]) / 2).tolist() == [[25, 35], [24, 36]]
    assert boxes[0, 3] - boxes[0, 1] == 0  # not kept from becoming small
    assert float(boxes[1, 2] - boxes[1, 0]) == pytest.approx(20 / 0.016, rel=1e-5)


class TestWithoutExtent:
    def test_a_box_counts_as_one_pixel(self, priors):
        values = DeltaXYWHBBoxCoder().encode(priors(ANCHOR), torch.tensor([[20.0, 40.0, 20.0, 40.0]])).values
        torch.testing.assert_close(values, torch.tensor([[0.0, 0.0, -math.log(20), -math.log(40)]]))

    def test_a_prior_counts_as_one_pixel(self, priors):
        values = DeltaXYWHBBoxCoder().encode(priors([[20.0, 40.0, 20.0, 40.0]]), torch.tensor(ANCHOR)).values
        torch.testing.assert_close(values, torch.tensor([[0.0, 0.0, math.log(20), math.log(40)]]))

    def test_other_size(self, priors):
        coder = DeltaXYWHBBoxCoder(empty_size=20)
        assert coder.encode(priors(ANCHOR), torch.tensor([[20.0, 40.0, 20.0, 80.0]])).values[0, 2] == 0

    def test_small_boxes_are_left_alone(self, priors):
        values = (
            DeltaXYWHBBoxCoder().encode(priors(ANCHOR), torch.tensor([[20.0, 40.0, 20.001, 40.001]])).values
        )
        torch.testing.assert_close(
            values[0, 2:], torch.tensor([1e-3 / 20, 1e-3 / 40]).log(), rtol=1e-3, atol=0
        )

    def test_zero_gives_the_reference(self, priors):
        values = (
            DeltaXYWHBBoxCoder(empty_size=0)
            .encode(priors(ANCHOR), torch.tensor([[20.0, 40.0, 20.0, 40.0]]))
            .values
        )
        assert values.tolist() == [[0, 0, -math.inf, -math.inf]]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"target_stds": (0.1, 0.1, 0, 0.2)}, r"target_stds.2: input should be greater than 0; got 0"),
        ({"target_means": (0, 0)}, r"target_means(\.2)?: is missing"),
        ({"wh_ratio_clip": 0}, r"wh_ratio_clip: input should be greater than 0; got 0"),
        ({"wh_ratio_clip": 62.5}, r"wh_ratio_clip: input should be less than or equal to 1; got 62.5"),
        ({"ctr_clamp": -1}, r"ctr_clamp: input should be greater than 0; got -1"),
        ({"empty_size": -1}, r"empty_size: input should be greater than or equal to 0; got -1"),
        ({"target_std": (1, 1, 1, 1)}, r"unknown parameter 'target_std'; did you mean 'target_stds'\?"),
    ],
)
def test_messages(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        DeltaXYWHBBoxCoder(**kwargs)


def test_growth_alone_may_be_limited(priors):
    codes = torch.tensor([[0.0, 0.0, 99.0, -9.0]])
    decode = DeltaXYWHBBoxCoder(limit_shrinking=False).decode
    x1, y1, x2, y2 = decode(priors(ANCHOR), codes)[0].tolist()
    assert x2 - x1 == pytest.approx(20 * 1000 / 16, rel=1e-5)
    assert y2 - y1 == pytest.approx(40 * math.exp(-9), rel=1e-2)
