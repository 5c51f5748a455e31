import copy

import pytest
import torch
from detcore_priors import PointGenerator

from detcore.errors import ConfigError


def test_points_are_boxes_without_extent_in_the_middle_of_cells(batch):
    priors = PointGenerator(strides=(8, (16, 4)))([(2, 2), (1, 1)], batch())
    assert priors.centers.tolist() == [[4, 4], [12, 4], [4, 12], [12, 12], [8, 2]]
    assert priors.boxes[:, :2].equal(priors.boxes[:, 2:])
    assert priors.strides.tolist() == [[8, 8]] * 4 + [[16, 4]]
    assert priors.boxes.dtype == torch.float32


@pytest.mark.parametrize(("offset", "first"), [(0, [0, 0]), (0.25, [2, 3]), (1, [8, 12])])
def test_offset_is_a_fraction_of_the_stride(batch, offset, first):
    assert PointGenerator(strides=((8, 12),), offset=offset)([(1, 1)], batch()).centers.tolist() == [first]


def test_levels_describe_the_grid(batch):
    made = PointGenerator(strides=(8, 16))
    priors = made([(2, 3), (1, 2)], batch())
    assert made.num_per_cell == (1, 1)
    assert [tuple(level) for level in priors.levels] == [(2, 3, 1, (8.0, 8.0)), (1, 2, 1, (16.0, 16.0))]
    assert len(priors) == 8


def test_valid_by_image(batch):
    made, sizes = PointGenerator(strides=(8,)), [(8, 9), (1, 8), (99, 99)]
    valid = made([(2, 2)], batch(*sizes)).valid
    assert valid.tolist() == [[True, True, False, False], [True, False, False, False], [True] * 4]
    assert valid.equal(torch.cat([made([(2, 2)], batch(size)).valid for size in sizes]))


def test_no_cells(batch):
    priors = PointGenerator(strides=(8,))([(0, 3)], batch((8, 8)))
    assert priors.boxes.shape == (0, 4)
    assert priors.valid.shape == (1, 0)


def test_kept_between_calls_and_copied(batch):
    made = PointGenerator(strides=(8,))
    boxes = made([(2, 2)], batch()).boxes
    assert made([(2, 2)], batch()).boxes is boxes
    assert copy.deepcopy(made)([(2, 2)], batch()).boxes.equal(boxes)


def test_strides_come_from_the_owner():
    assert PointGenerator.spec().build(strides=(8, 16)).strides == ((8, 8), (16, 16))
    assert PointGenerator.spec(strides=(4,)).build(strides=(8, 16)).strides == ((4, 4),)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"offset": -0.1}, r"offset: input should be greater than or equal to 0; got -0.1"),
        ({"strides": (8.5,)}, r"strides.0.*got 8.5"),
        ({"strides": (True,)}, r"strides.0.*got True"),
    ],
)
def test_messages(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        PointGenerator(**{"strides": (8,), **kwargs})


def test_wrong_number_of_levels(batch):
    with pytest.raises(
        ConfigError, match=r"PointGenerator: got 2 feature levels but has 1 strides \[\(8, 8\)\]"
    ):
        PointGenerator(strides=(8,))([(1, 1), (1, 1)], batch())
