import pytest
import torch
from detcore_coders import DistancePointBBoxCoder

from detcore.errors import ConfigError

POINT = [[20.0, 40.0, 20.0, 40.0]]


def test_by_hand(priors):
    coder, box = DistancePointBBoxCoder(), torch.tensor([[10.0, 20.0, 50.0, 80.0]])
    codes = coder.encode(priors(POINT), box).values
    assert codes.tolist() == [[10, 20, 30, 40]]
    assert coder.decode(priors(POINT), codes).equal(box)


def test_centres_of_boxes_count(priors):
    codes = DistancePointBBoxCoder().encode(
        priors([[10.0, 30.0, 30.0, 50.0]]), torch.tensor([[0.0, 0.0, 50.0, 80.0]])
    )
    assert codes.values.tolist() == [[20, 40, 30, 40]]


def test_points_outside_have_negative_distances(priors):
    assert DistancePointBBoxCoder().encode(
        priors(POINT), torch.tensor([[30.0, 0.0, 50.0, 30.0]])
    ).values.tolist() == [[-10, 40, 30, -10]]


def test_max_dis_clamps_to_a_range(priors):
    coder = DistancePointBBoxCoder(max_dis=16, eps=0.5)
    assert coder.encode(priors(POINT), torch.tensor([[30.0, 0.0, 35.0, 30.0]])).values.tolist() == [
        [0, 15.5, 15, 0]
    ]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"max_dis": 0}, r"max_dis: input should be greater than 0; got 0"),
        ({"max_dis": 1, "eps": 1}, r"eps=1.0 should be less than max_dis=1.0"),
        ({"eps": -1}, r"eps: input should be greater than or equal to 0; got -1"),
    ],
)
def test_messages(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        DistancePointBBoxCoder(**kwargs)
