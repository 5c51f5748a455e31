"""Generators whose sizes are given or tabulated: SSD, YOLO, and those of MMDetection 1.x."""

import pytest
import torch
from detcore_priors import (
    AnchorGenerator,
    LegacyAnchorGenerator,
    LegacySSDAnchorGenerator,
    MlvlPointGenerator,
    PointGenerator,
    SSDAnchorGenerator,
    YOLOAnchorGenerator,
)

from detcore import build, dump, registry
from detcore.errors import ConfigError

SSD300 = {
    "strides": (8, 16, 32, 64, 100, 300),
    "ratios": ((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,)),
}
ONE_LEVEL = {"strides": (8,), "ratios": ((4.0,),), "min_sizes": (16,), "max_sizes": (25,)}
MADE = [
    LegacyAnchorGenerator(ratios=(1.0, 2.0), scales=(8.0,), strides=(8, (16, 12))),
    LegacySSDAnchorGenerator(**ONE_LEVEL),
    MlvlPointGenerator(offset=0.25, strides=(8, 16)),
    SSDAnchorGenerator(**SSD300, basesize_ratio_range=(0.2, 0.9)),
    SSDAnchorGenerator(**ONE_LEVEL),
    YOLOAnchorGenerator(base_sizes=(((10, 13), (16, 30)), ((30, 61),)), strides=(8, 16)),
]
every = pytest.mark.parametrize("made", MADE, ids=lambda made: type(made).__name__)


def sides(boxes):
    return (boxes[:, 2:] - boxes[:, :2]).tolist()


def centers(boxes):
    return ((boxes[:, 2:] + boxes[:, :2]) / 2).tolist()


@every
class TestEvery:
    def test_registered_and_dumped(self, made):
        assert registry.resolve("prior_generators", type(made).__name__) is type(made)
        again = build(dump(made))
        assert dump(again) == dump(made)
        assert again._grid.base == made._grid.base

    def test_grid(self, made, batch):
        sizes = [(2, 3)] * len(made.strides)
        priors = made(sizes, batch((20, 20), (1, 9)))
        assert len(priors) == sum(6 * count for count in made.num_per_cell)
        assert [level.per_cell for level in priors.levels] == list(made.num_per_cell)
        first = priors.boxes[: made.num_per_cell[0]]
        assert first.equal(torch.tensor(made._grid.base[0]))
        singles = [made(sizes, batch(size)).valid for size in ((20, 20), (1, 9))]
        assert priors.valid.equal(torch.cat(singles))

    def test_without_cells(self, made, batch):
        assert len(made([(0, 0)] * len(made.strides), batch((8, 8)))) == 0

    def test_wrong_number_of_levels(self, made, batch):
        with pytest.raises(ConfigError, match=f"{type(made).__name__}: got 9 feature levels"):
            made([(1, 1)] * 9, batch())


class TestYOLO:
    def test_sizes_around_the_middle_of_the_cell(self, batch):
        (base,) = YOLOAnchorGenerator(base_sizes=(((10, 13), (33, 23)),), strides=((8, 4),)).base_anchors
        assert sides(base) == [[10, 13], [33, 23]]
        assert centers(base) == [[4, 2]] * 2

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            (
                {"base_sizes": (((1, 2),),)},
                r"base_sizes should have one entry per level; got 1 for 2 strides",
            ),
            ({"base_sizes": (((1, 2),), ())}, r"base_sizes.1.*at least 1 item"),
            (
                {"base_sizes": (((1, 2),), ((0, 1),))},
                r"base_sizes.1.0.0: input should be greater than 0; got 0",
            ),
        ],
    )
    def test_messages(self, kwargs, message):
        with pytest.raises(ConfigError, match=message):
            YOLOAnchorGenerator(strides=(8, 16), **kwargs)


class TestSSD:
    def test_two_squares_then_each_ratio_after_its_inverse(self):
        (base,) = SSDAnchorGenerator(**ONE_LEVEL).base_anchors
        assert sides(base) == [[16, 16], [20, 20], [32, 8], [8, 32]]
        assert centers(base) == [[4, 4]] * 4

    def test_the_reference_s_default_order(self):
        (base,) = SSDAnchorGenerator(**ONE_LEVEL, scale_major=True).base_anchors
        assert sides(base) == [[16, 16], [40, 10], [20, 20], [32, 8]]

    @pytest.mark.parametrize(
        ("smallest", "expected"),
        [
            (0.15, [(21, 45), (45, 99), (99, 153), (153, 207), (207, 261), (261, 315)]),
            (0.2, [(30, 60), (60, 111), (111, 162), (162, 213), (213, 264), (264, 315)]),
        ],
    )
    def test_sizes_of_ssd300(self, smallest, expected):
        made = SSDAnchorGenerator(**SSD300, basesize_ratio_range=(smallest, 0.9))
        assert list(made.sizes) == expected
        assert made.num_per_cell == (4, 6, 6, 6, 4, 4)

    def test_strides_of_the_spec_win(self):
        spec = SSDAnchorGenerator.spec(**SSD300)
        assert spec.build(strides=(8, 16, 32, 64, 128, 256)).strides[-1] == (300, 300)

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"min_sizes": (1,) * 6}, "max_sizes missing; give it with min_sizes, or neither"),
            ({"max_sizes": (1,) * 6}, "min_sizes missing; give it with max_sizes, or neither"),
            (
                {"min_sizes": (8,) * 6, "max_sizes": (9,) * 5},
                "max_sizes should have one entry per level; got 5 for 6 strides",
            ),
            (
                {"min_sizes": (8,) * 6, "max_sizes": (9,) * 5 + (8,)},
                r"max_sizes\[5\]=8.0 should be greater than min_sizes\[5\]=8.0",
            ),
            (
                {"input_size": 320},
                "input_size=320 with basesize_ratio_range from 0.15: sizes are known for 300 with 0.15",
            ),
            ({"ratios": ((2.0,),)}, "ratios should have one entry per level; got 1 for 6 strides"),
            (
                {"ratios": ((2.0,),) * 2, "strides": (8, 16)},
                r"basesize_ratio_range=\(0.15, 0.9\) cannot be spread over 2 levels; give min_sizes and max_sizes",
            ),
        ],
    )
    def test_messages(self, kwargs, message):
        with pytest.raises(ConfigError, match=message):
            SSDAnchorGenerator(**{**SSD300, **kwargs})


class TestLegacy:
    def test_sides_lack_a_pixel_and_corners_are_whole(self):
        (base,) = LegacyAnchorGenerator(
            ratios=(1.0,), scales=(1.0,), strides=(16,), base_sizes=(9,)
        ).base_anchors
        assert base.tolist() == [[0, 0, 8, 8]]

    def test_halves_are_rounded_to_the_even_number(self):
        made = LegacyAnchorGenerator(ratios=(1.0,), scales=(1.0,), strides=(8,), center_offset=0)
        assert made.base_anchors[0].tolist() == [[-4, -4, 4, 4]]  # 3.5 either way

    def test_otherwise_like_anchors(self):
        kwargs = {"ratios": (0.5, 2.0), "octave_base_scale": 4, "scales_per_octave": 3, "strides": (8,)}
        for scale_major in (True, False):
            legacy = LegacyAnchorGenerator(**kwargs, scale_major=scale_major, centers=((0, 0),)).base_anchors[
                0
            ]
            plain = AnchorGenerator(**kwargs, scale_major=scale_major).base_anchors[0]
            shrunk = plain.sign() * (plain.abs() - 0.5)
            assert legacy.equal(shrunk.round())

    def test_ssd(self):
        (base,) = LegacySSDAnchorGenerator(**ONE_LEVEL).base_anchors
        assert sides(base) == [[15, 15], [19, 19], [31, 7], [7, 31]]
        assert centers(base) == [[3.5, 3.5]] * 4

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"scales": None}, "octave_base_scale and scales_per_octave missing; give scales"),
            ({"centers": ((1, 1), (2, 2))}, "centers should have one entry per level; got 2 for 1 strides"),
        ],
    )
    def test_messages(self, kwargs, message):
        with pytest.raises(ConfigError, match=message):
            LegacyAnchorGenerator(**{"ratios": (1.0,), "scales": (1.0,), "strides": (8,), **kwargs})


def test_points_under_both_names(batch):
    one, other = (cls(offset=0.3, strides=(8, 16)) for cls in (PointGenerator, MlvlPointGenerator))
    sizes = [(3, 2), (2, 1)]
    assert one(sizes, batch()).boxes.equal(other(sizes, batch()).boxes)
    assert isinstance(other, PointGenerator)
    assert dump(other)["type"].endswith(":MlvlPointGenerator")
