import copy
import pickle

import pytest
import torch
from detcore_priors import AnchorGenerator
from hypothesis import given, settings
from hypothesis import strategies as st

from detcore.component import Spec
from detcore.errors import ConfigError
from detcore.structures import ImageBatch

RETINA = {"octave_base_scale": 4, "scales_per_octave": 3, "ratios": (0.5, 1.0, 2.0)}
STRIDES = (8, 16, 32)
SIZES = ((4, 6), (2, 3), (1, 2))


def square(**kwargs):
    """One square anchor of one cell's size, so that positions are easy to read."""
    return AnchorGenerator(**{"ratios": (1.0,), "scales": (1.0,), "strides": (8,), **kwargs})


def sides(boxes):
    return boxes[:, 2:] - boxes[:, :2]


class TestShapes:
    def test_area_and_ratio(self):
        (base,) = AnchorGenerator(ratios=(0.25, 4.0), scales=(2.0,), strides=(8,)).base_anchors
        torch.testing.assert_close(sides(base), torch.tensor([[32.0, 8.0], [8.0, 32.0]]))

    def test_octave_scales_divide_an_octave(self):
        (base,) = square(scales=None, octave_base_scale=4, scales_per_octave=2).base_anchors
        torch.testing.assert_close(sides(base)[:, 0], torch.tensor([32.0, 32.0 * 2**0.5]))

    def test_order_within_a_cell(self):
        ratios, scales = (1.0, 4.0), (1.0, 2.0)
        by_ratio = AnchorGenerator(ratios=ratios, scales=scales, strides=(8,)).base_anchors[0]
        by_scale = AnchorGenerator(
            ratios=ratios, scales=scales, strides=(8,), scale_major=False
        ).base_anchors[0]
        assert sides(by_ratio).tolist() == [[8, 8], [16, 16], [4, 16], [8, 32]]
        assert sides(by_scale).tolist() == [[8, 8], [4, 16], [16, 16], [8, 32]]

    def test_base_size_is_the_smaller_stride(self):
        assert square(strides=((8, 12),)).base_sizes == (8,)

    def test_base_sizes_replace_the_strides(self):
        assert sides(square(base_sizes=(20,)).base_anchors[0]).tolist() == [[20, 20]]

    def test_base_anchors_are_copies(self):
        made = square()
        made.base_anchors[0].zero_()
        assert made.base_anchors[0].tolist() == [[-4, -4, 4, 4]]


class TestCenters:
    @pytest.mark.parametrize(("unit", "center"), [("stride", [4, 6]), ("base_size", [4, 4])])
    def test_offset_of_rectangular_strides(self, batch, unit, center):
        made = square(strides=((8, 12),), center_offset=0.5, center_offset_unit=unit)
        assert made([(1, 1)], batch()).centers.tolist() == [center]

    def test_offset_of_own_base_sizes(self, batch):
        assert square(base_sizes=(20,), center_offset=0.5)([(1, 1)], batch()).centers.tolist() == [[4, 4]]

    def test_units_agree_for_square_strides(self):
        one, other = (square(center_offset=0.3, center_offset_unit=u) for u in ("stride", "base_size"))
        assert one.base_anchors[0].equal(other.base_anchors[0])

    def test_centers_by_level(self, batch):
        made = square(strides=(8, 16), centers=((3.5, 4.0), (7.5, 9.0)))
        assert made([(1, 2), (1, 1)], batch()).centers.tolist() == [[3.5, 4], [11.5, 4], [7.5, 9]]


class TestGrid:
    def test_order_is_level_row_column_cell(self, batch):
        made = square(strides=((8, 4), (16, 32)), scales=(1.0, 2.0))
        priors = made([(2, 3), (1, 1)], batch())
        expected = [[x, y] for y in (0, 4) for x in (0, 8, 16) for _ in range(2)] + [[0, 0]] * 2
        assert priors.centers.tolist() == expected
        assert priors.strides.tolist() == [[8, 4]] * 12 + [[16, 32]] * 2

    def test_levels_describe_the_grid(self, batch):
        made = AnchorGenerator(**RETINA, strides=STRIDES)
        priors = made(SIZES, batch())
        assert made.num_per_cell == (9, 9, 9)
        assert [tuple(level) for level in priors.levels] == [
            (4, 6, 9, (8.0, 8.0)),
            (2, 3, 9, (16.0, 16.0)),
            (1, 2, 9, (32.0, 32.0)),
        ]
        assert sum(level.count for level in priors.levels) == len(priors) == 288
        assert priors.boxes.dtype == priors.strides.dtype == torch.float32

    def test_levels_without_cells(self, batch):
        priors = AnchorGenerator(**RETINA, strides=STRIDES)([(0, 0), (1, 1), (0, 5)], batch((32, 32), (8, 8)))
        assert len(priors) == 9
        assert priors.valid.shape == (2, 9)

    def test_nothing_at_all(self, batch):
        priors = square()([(0, 0)], batch((32, 32)))
        assert priors.boxes.shape == (0, 4)
        assert priors.strides.shape == (0, 2)
        assert priors.valid.shape == (1, 0)

    def test_on_the_device_of_the_batch(self, batch):
        priors = square()([(2, 2)], batch(device="meta"))
        assert {t.device.type for t in (priors.boxes, priors.strides, priors.valid)} == {"meta"}

    def test_wrong_number_of_levels(self, batch):
        message = r"AnchorGenerator: got 2 feature levels but has 3 strides .*give one stride per level"
        with pytest.raises(ConfigError, match=message):
            AnchorGenerator(**RETINA, strides=STRIDES)(SIZES[:2], batch())


class TestValid:
    def test_partly_covered_cells_count(self, batch):
        valid = square()([(3, 3)], batch((8, 9), (17, 8), (100, 100))).valid.reshape(3, 3, 3)
        assert valid[0].tolist() == [[True, True, False], [False] * 3, [False] * 3]
        assert valid[1].tolist() == [[True, False, False]] * 3
        assert valid[2].all()

    def test_all_priors_of_a_cell_share_it(self, batch):
        valid = square(scales=(1.0, 9.0))([(1, 2)], batch((8, 8))).valid
        assert valid.tolist() == [[True, True, False, False]]

    @given(
        st.tuples(st.integers(1, 12), st.integers(1, 12)),
        st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=4),
        st.integers(0, 9),
        st.integers(0, 9),
    )
    @settings(max_examples=50, deadline=None)
    def test_counts_are_ceil_of_size_over_stride(self, stride, padded, h, w):
        from detcore.structures import ImageBatch

        images = ImageBatch.of(torch.zeros(len(padded), 3, 1, 1), padded_sizes=padded)
        valid = square(strides=(stride,))([(h, w)], images).valid.reshape(len(padded), h, w)
        for flags, (height, width) in zip(valid, padded, strict=True):
            rows, columns = min(-(-height // stride[1]), h), min(-(-width // stride[0]), w)
            expected = torch.zeros(h, w, dtype=torch.bool)
            expected[:rows, :columns] = True
            assert flags.equal(expected)

    def test_batch_equals_singles(self, batch):
        made, sizes = AnchorGenerator(**RETINA, strides=STRIDES), [(30, 44), (16, 20), (9, 32)]
        together = made(SIZES, batch(*sizes)).valid
        assert together.equal(torch.cat([made(SIZES, batch(size)).valid for size in sizes]))


class TestCache:
    @pytest.fixture
    def made(self):
        return AnchorGenerator(**RETINA, strides=STRIDES)

    def test_repeated_calls_share_tensors(self, made, batch):
        first, second = made(SIZES, batch((8, 8))), made([list(s) for s in SIZES], batch((32, 48)))
        assert first.boxes is second.boxes
        assert first.valid.sum() == 27
        assert second.valid.all()

    def test_other_sizes_give_other_grids(self, made, batch):
        one, other = made(SIZES, batch()), made(((5, 6), *SIZES[1:]), batch())
        assert len(other) == len(one) + 54
        assert made(SIZES, batch()).boxes is one.boxes

    def test_devices_are_kept_apart(self, made, batch):
        made(SIZES, batch(device="meta"))
        assert made(SIZES, batch()).boxes.device.type == "cpu"

    def test_number_of_grids_is_bounded_and_the_last_used_stay(self, made, batch):
        first = made(SIZES, batch()).boxes
        for h in range(30):
            made(((h, 1), (1, 1), (1, 1)), batch())
            assert made(SIZES, batch()).boxes is first
        assert len(made._grid.cache) == made._grid.cache.size == 8

    def test_writing_into_a_result_does_not_reach_the_next_call(self, made, batch):
        before = made(SIZES, batch()).boxes.clone()
        made(SIZES, batch()).boxes.mul_(2)
        made(SIZES, batch()).strides.zero_()
        after = made(SIZES, batch())
        assert after.boxes.equal(before)
        assert after.strides.min() == 8

    def test_grids_of_inference_mode_serve_training(self, made, batch):
        with torch.inference_mode():
            made(SIZES, batch())
        boxes = made(SIZES, batch()).boxes
        factor = torch.ones(4, requires_grad=True)
        (boxes * factor).sum().backward()
        assert factor.grad.equal(boxes.sum(0))

    @pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda g: pickle.loads(pickle.dumps(g))])
    def test_copies_start_empty_and_agree(self, made, batch, duplicate):
        original = made(SIZES, batch()).boxes
        copied = duplicate(made)
        assert len(copied._grid.cache) == 0
        assert copied(SIZES, batch()).boxes.equal(original)
        assert copied(SIZES, batch()).boxes is not original

    def test_compiled(self, made, batch):
        images = batch((30, 44), (9, 32))
        eager = made(SIZES, images)

        def run(pixels_batch):
            priors = made(SIZES, pixels_batch)
            return priors.boxes + 0, priors.valid

        compiled = torch.compile(run, fullgraph=True, backend="eager")
        boxes, valid = compiled(images)
        assert boxes.equal(eager.boxes)
        assert valid.equal(eager.valid)

    def test_exported(self, made, batch):
        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.priors = made

            def forward(self, pixels):
                from detcore.structures import ImageBatch

                return self.priors(SIZES, ImageBatch.of(pixels)).boxes

        program = torch.export.export(Model(), (torch.zeros(1, 3, 32, 48),))
        assert program.module()(torch.zeros(1, 3, 32, 48)).equal(made(SIZES, batch()).boxes)

    def test_fake_tensors_are_not_kept(self, made, batch):
        from torch._subclasses import FakeTensorMode

        with FakeTensorMode():
            made(SIZES, batch())
        assert len(made._grid.cache) == 0


class TestConstruction:
    def test_strides_come_from_the_owner(self):
        spec = AnchorGenerator.spec(**RETINA)
        assert isinstance(spec, Spec)
        assert spec.build(strides=STRIDES).strides == ((8, 8), (16, 16), (32, 32))

    def test_a_spec_may_override_the_strides(self):
        assert AnchorGenerator.spec(**RETINA, strides=(10, (7, 9))).build(strides=(8, 16)).strides == (
            (10, 10),
            (7, 9),
        )

    def test_values_from_files_are_coerced(self):
        made = AnchorGenerator.spec(ratios=["1", 2], scales=[8], strides=["8", [16, 12]]).build()
        assert made.ratios == (1.0, 2.0)
        assert made.strides == ((8, 8), (16, 12))

    def test_independent_of_default_device_and_dtype(self):
        expected = square(center_offset=0.5).base_anchors[0]
        torch.set_default_dtype(torch.float64)
        try:
            with torch.device("meta"):
                made = square(center_offset=0.5).base_anchors[0]
        finally:
            torch.set_default_dtype(torch.float32)
        assert made.equal(expected)
        assert made.dtype == torch.float32

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            (
                {"octave_base_scale": 4, "scales_per_octave": 3},
                r"scales=\[1.0\] and octave_base_scale=4.0 and scales_per_",
            ),
            (
                {"scales_per_octave": 3},
                r"scales=\[1.0\] and scales_per_octave=3 exclude each other; leave out one",
            ),
            (
                {"scales": None, "octave_base_scale": 4},
                r"scales_per_octave missing; give scales, or octave_base_scale and",
            ),
            ({"scales": None}, r"octave_base_scale and scales_per_octave missing; give scales"),
            (
                {"base_sizes": (8, 16)},
                r"base_sizes should have one entry per level; got 2 for 1 strides \[\(8, 8\)\]",
            ),
            ({"base_sizes": ()}, r"base_sizes should have one entry per level; got 0 for 1 strides"),
            ({"centers": ((1, 2), (3, 4))}, r"centers should have one entry per level; got 2 for 1 strides"),
            (
                {"centers": ((1, 2),), "center_offset": 0.5},
                r"centers and center_offset=0.5 both say .*leave out one",
            ),
            ({"scales": ()}, r"scales: tuple should have at least 1 item.*got \(\)"),
            ({"scales": (0,)}, r"scales.0: input should be greater than 0; got 0"),
            ({"ratios": (-1,)}, r"ratios.0: input should be greater than 0; got -1"),
            ({"ratios": ()}, r"ratios: tuple should have at least 1 item"),
            ({"strides": ()}, r"strides: tuple should have at least 1 item"),
            ({"strides": (0,)}, r"strides.0.*greater than or equal to 1.*got 0"),
            ({"strides": ((8, -2),)}, r"strides.0.1: input should be greater than or equal to 1; got -2"),
            ({"base_sizes": (0,)}, r"base_sizes.0: input should be greater than 0; got 0"),
            ({"center_offset": 1.5}, r"center_offset: input should be less than or equal to 1; got 1.5"),
            (
                {"center_offset_unit": "cell"},
                r"center_offset_unit: input should be 'stride' or 'base_size'; got 'cell'",
            ),
            ({"octave": 4}, r"octave: unknown parameter 'octave'"),
        ],
    )
    def test_messages(self, kwargs, message):
        with pytest.raises(ConfigError, match=message) as caught:
            square(**kwargs)
        assert "AnchorGenerator" in str(caught.value)

    def test_strides_without_an_owner(self):
        with pytest.raises(ConfigError, match="strides: AnchorGenerator needs it from its owner"):
            AnchorGenerator(**RETINA)


def padded(height, width):
    return ImageBatch.of(torch.zeros(1, 3, height, width))


class TestSettingsOfTorchvision:
    def test_sizes_by_level_on_whole_pixels(self):
        generator = AnchorGenerator(
            ratios=(0.5, 1.0), sizes=((32, 50), (64, 101)), round_corners=True, strides=(8, 16)
        )
        first, second = generator.base_anchors
        # 32 / sqrt(0.5) = 45.25 wide, 22.63 high; halves are rounded to the even number
        assert first.tolist() == [
            [-23, -11, 23, 11],
            [-35, -18, 35, 18],
            [-16, -16, 16, 16],
            [-25, -25, 25, 25],
        ]
        assert second[3].tolist() == [-50, -50, 50, 50]
        assert generator.num_per_cell == (4, 4)

    def test_steps_from_the_image(self):
        generator = square(strides=(32, 64), step="image")
        priors = generator(((3, 5), (2, 3)), padded(96, 160))  # 96 // 2 = 48 and 160 // 3 = 53, not 64
        assert priors.levels[1].stride == (53.0, 48.0)
        assert priors.centers[15:].tolist() == [[x, y] for y in (0, 48) for x in (0, 53, 106)]
        assert priors.strides[15:].unique(dim=0).tolist() == [[53, 48]]
        other = generator(((3, 5), (2, 3)), padded(128, 192))
        assert other.centers[-1].tolist() == [128, 64]
        assert square(strides=(32, 64))(((3, 5), (2, 3)), padded(96, 160)).centers[-1].tolist() == [128, 64]

    def test_a_level_without_cells_keeps_its_stride(self):
        priors = square(strides=(32, 64), step="image")(((1, 1), (0, 3)), padded(32, 32))
        assert priors.levels[1].stride == (10.0, 64.0)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                {"sizes": ((8,),), "scales": (1.0,)},
                r"sizes=\[\(8.0,\)\] and scales=\(1.0,\) exclude each other",
            ),
            ({"sizes": ((8,), (9,)), "scales": None}, "sizes should have one entry per level; got 2 for 1"),
            (
                {"sizes": ((8,), (8, 9)), "scales": None, "strides": (8, 16)},
                r"sizes should have as many entries in each level, got \[1, 2\]",
            ),
        ],
    )
    def test_contradictions(self, arguments, message):
        with pytest.raises(ConfigError, match=message):
            square(**arguments)
