import math

import pytest
import torch
from detcore_coders import TBLRBBoxCoder

from detcore.errors import ConfigError

ANCHOR = [[10.0, 20.0, 30.0, 60.0]]  # centre (20, 40), 20 x 40
BOX = torch.tensor([[10.0, 0.0, 40.0, 60.0]])


@pytest.mark.parametrize(
    ("normalizer", "expected"),
    [
        (1.0, [1.0, 0.5, 0.5, 1.0]),
        (4, [0.25, 0.125, 0.125, 0.25]),
        ((1.0, 0.5, 0.25, 0.125), [1.0, 1.0, 2.0, 8.0]),
    ],
)
def test_by_hand(priors, normalizer, expected):
    coder = TBLRBBoxCoder(normalizer=normalizer)
    codes = coder.encode(priors(ANCHOR), BOX).values
    assert codes.tolist() == [expected]
    assert coder.decode(priors(ANCHOR), codes).equal(BOX)


@pytest.mark.parametrize(("empty_size", "expected"), [(1.0, 20.0), (2.0, 10.0)])
def test_a_prior_without_extent(priors, empty_size, expected):
    coder = TBLRBBoxCoder(normalizer=1.0, empty_size=empty_size)
    assert coder.encode(priors([[20.0, 40.0, 20.0, 60.0]]), BOX).values[0, 3] == expected


def test_zero_gives_the_reference(priors):
    coder = TBLRBBoxCoder(empty_size=0)
    assert coder.encode(priors([[20.0, 40.0, 20.0, 60.0]]), BOX).values[0, 3] == math.inf


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"normalizer": 0}, r"normalizer: input should be greater than 0.*got 0"),
        ({"normalizer": (1, 1, 0, 1)}, r"normalizer.2: input should be greater than 0; got 0"),
        ({"normalizer": True}, r"normalizer: .*got True"),
        ({"empty_size": -1}, r"empty_size: input should be greater than or equal to 0; got -1"),
    ],
)
def test_messages(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        TBLRBBoxCoder(**kwargs)
