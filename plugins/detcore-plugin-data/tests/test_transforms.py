from __future__ import annotations

import colorsys
import copy

import pytest
import torch
from detcore_data import MultiScaleResize, Pad, PhotometricDistortion, RandomFlip, Resize, collate
from detcore_data.ground_truth import to_file_pixels
from detcore_data.photometric_distortion import rotate_hue, scale_saturation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors

from detcore import build, dump
from detcore.errors import ConfigError, DataError
from detcore.structures import Detections, ImageBatch

TRANSFORMS = {
    "resize": Resize.spec(scale=(20, 12)),
    "resize both edges": Resize.spec(scale=(31, 9), keep_ratio=False),
    "resize short edge": Resize.spec(scale=10, max_size=15),
    "enlarge": Resize.spec(scale=(64, 48), antialias=False),
    "one of several": MultiScaleResize.spec(scales=((20, 12), (40, 30))),
    "between two": MultiScaleResize.spec(scales=((20, 12), (40, 30)), mode="range", keep_ratio=False),
    "by a factor": MultiScaleResize.spec(scales=((20, 12),), ratio_range=(0.5, 2.0)),
    "flip": RandomFlip.spec(prob=1.0),
    "flip vertically": RandomFlip.spec(prob=1.0, direction="vertical"),
    "flip both": RandomFlip.spec(prob=1.0, direction="diagonal"),
    "pad": Pad.spec(size_divisor=32),
    "pad to a square": Pad.spec(pad_to_square=True, pad_val=(1, 2, 3)),
    "colours": PhotometricDistortion.spec(),
}
BOXES = ((2, 3, 10, 11), (0, 0, 24, 18), (20, 10, 24, 18))

names = pytest.mark.parametrize("name", TRANSFORMS)


def _item(masked_example, boxes=BOXES):
    return masked_example(18, 24, boxes)


def _back(item):
    """The item's boxes, as detections mapped back to the file."""
    batch = collate([item])
    pixels = batch.images[0][None].float()
    images = ImageBatch.of(pixels, [tuple(pixels.shape[-2:])], geometry=batch.geometry)
    n = batch.targets.boxes.shape[1]
    detections = Detections(
        batch.targets.boxes, torch.ones(1, n), batch.targets.labels, torch.ones(1, n, dtype=torch.bool)
    )
    return detections.to_original(images).boxes[0]


@names
def test_geometry_leads_back_to_the_file(name, masked_example):
    item = build(TRANSFORMS[name])(_item(masked_example))
    assert item["geometry"].original_size == (18, 24)
    torch.testing.assert_close(_back(item), torch.tensor(BOXES).float(), atol=1e-4, rtol=0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chain=st.lists(st.sampled_from(sorted(TRANSFORMS)), min_size=2, max_size=5), seed=st.integers(0, 99))
def test_any_chain_leads_back_to_the_file(chain, seed, masked_example):
    torch.manual_seed(seed)
    item = _item(masked_example)
    for name in chain:
        item = build(TRANSFORMS[name])(item)
    torch.testing.assert_close(_back(item), torch.tensor(BOXES).float(), atol=1e-3, rtol=0)
    size = tuple(item["image"].shape[-2:])
    exact = to_file_pixels(item["boxes"].as_subclass(torch.Tensor).double(), size, item["geometry"])
    torch.testing.assert_close(exact, torch.tensor(BOXES).double(), atol=1e-3, rtol=0)


@names
def test_the_argument_is_left_as_it_is(name, masked_example):
    item = _item(masked_example)
    item["ignore"][1] = True
    before = copy.deepcopy(item)
    changed = build(TRANSFORMS[name])(item)
    for key, value in before.items():
        assert torch.equal(item[key], value) if isinstance(value, torch.Tensor) else item[key] == value
    assert changed["ignore"].tolist() == [False, True, False]
    assert changed["labels"].tolist() == [0, 1, 2]
    assert (changed["file"], changed["image_id"]) == (item["file"], item["image_id"])


@names
def test_types_and_sizes(name, masked_example):
    item = build(TRANSFORMS[name])(_item(masked_example))
    size = tuple(item["image"].shape[-2:])
    assert type(item["image"]) is tv_tensors.Image
    assert item["image"].dtype == torch.uint8
    assert type(item["boxes"]) is tv_tensors.BoundingBoxes
    assert item["boxes"].canvas_size == size
    assert item["boxes"].dtype == torch.float32
    assert type(item["masks"]) is tv_tensors.Mask
    assert item["masks"].dtype == torch.bool
    assert tuple(item["masks"].shape) == (3, *size)
    assert (item["boxes"] >= 0).all()
    assert (item["boxes"] <= torch.tensor([size[1], size[0]] * 2)).all()


@names
def test_an_image_without_objects(name, masked_example):
    item = build(TRANSFORMS[name])(_item(masked_example, ()))
    assert item["boxes"].shape == (0, 4)
    assert item["masks"].shape == (0, *item["image"].shape[-2:])


@names
def test_masks_stay_with_their_boxes(name, masked_example):
    item = build(TRANSFORMS[name])(_item(masked_example))
    for mask, box in zip(item["masks"], item["boxes"], strict=True):
        rows, columns = mask.nonzero().unbind(1)
        found = torch.stack((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        assert (found - box).abs().max() <= 0.5


@names
def test_dump_and_build(name):
    transform = build(TRANSFORMS[name])
    assert dump(build(dump(transform))) == dump(transform)


@names
def test_the_same_seed_gives_the_same_item(name, masked_example):
    transform = build(TRANSFORMS[name])
    items = []
    for _ in range(2):
        torch.manual_seed(5)
        items.append(transform(_item(masked_example)))
    assert torch.equal(items[0]["image"], items[1]["image"])
    assert torch.equal(items[0]["boxes"], items[1]["boxes"])


# ---------------------------------------------------------------------------------------------------- Resize


@pytest.mark.parametrize(
    ("parameters", "size", "expected"),
    [
        ({"scale": (1333, 800)}, (480, 640), (800, 1067)),
        ({"scale": (800, 1333)}, (480, 640), (800, 1067)),
        ({"scale": (1333, 800), "keep_ratio": False}, (480, 640), (800, 1333)),
        ({"scale": 800}, (480, 640), (800, 1067)),
        ({"scale": 800, "max_size": 1000}, (480, 640), (750, 1000)),
        ({"scale": (100, 100)}, (1, 1000), (1, 100)),
    ],
)
def test_new_sizes(parameters, size, expected):
    assert Resize(**parameters).size_of(size) == expected


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"scale": 800, "keep_ratio": False}, r"keep_ratio=False needs both edges: give scale=\(w, h\)"),
        ({"scale": (8, 8), "max_size": 9}, "max_size belongs to a short edge"),
        ({"scale": 800, "max_size": 700}, "max_size=700 is shorter than the short edge scale=800"),
        ({"scale": (0, 5)}, "scale.0: .*greater than or equal to 1"),
        ({}, "required parameter of Resize is missing"),
    ],
)
def test_wrong_resize(parameters, message):
    with pytest.raises(ConfigError, match=message):
        Resize(**parameters)


def test_scale_is_the_true_factor_per_axis(example):
    item = Resize(scale=(10, 10))(example(7, 9))
    assert tuple(item["image"].shape[-2:]) == (8, 10)
    assert item["geometry"].scale == (10 / 9, 8 / 7)


def test_boxes_may_reach_over_the_border(example):
    boxes = ((-2.0, 1.0, 9.0, 7.0),)
    assert Resize(scale=(16, 12))(example(boxes=boxes))["boxes"].tolist() == [[0, 2, 16, 12]]
    free = Resize(scale=(16, 12), clip_object_border=False)(example(boxes=boxes))
    assert free["boxes"].tolist() == [[-4, 2, 18, 14]]


def test_antialias_averages(example):
    item = example(8, 8)
    item["image"] = tv_tensors.Image(torch.zeros(3, 8, 8, dtype=torch.uint8))
    item["image"][:, ::4] = 200
    assert Resize(scale=(8, 2), keep_ratio=False)(item)["image"].float().mean() > 30
    assert Resize(scale=(8, 2), keep_ratio=False, antialias=False)(item)["image"].max() == 0


# ---------------------------------------------------------------------------------------- MultiScaleResize


def test_every_value_is_drawn():
    transform = MultiScaleResize(scales=((1333, 640), (1333, 672), (1333, 800)))
    torch.manual_seed(0)
    drawn = [transform.draw() for _ in range(300)]
    assert all(80 < drawn.count(scale) < 120 for scale in transform.scales)


def test_both_ends_of_a_range_are_drawn():
    transform = MultiScaleResize(scales=((20, 10), (22, 12)), mode="range")
    torch.manual_seed(0)
    drawn = {transform.draw() for _ in range(300)}
    assert drawn == {(w, h) for w in (20, 21, 22) for h in (10, 11, 12)}


def test_factors():
    transform = MultiScaleResize(scales=((640, 320),), ratio_range=(0.5, 2.0))
    torch.manual_seed(0)
    drawn = [transform.draw() for _ in range(300)]
    assert min(w for w, _ in drawn) >= 320
    assert max(w for w, _ in drawn) < 1280
    assert all(h == w // 2 for w, h in drawn)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"scales": ()}, "scales: .*at least 1"),
        ({"scales": ((8, 8),), "mode": "range"}, "mode='range' draws between two scales, got 1"),
        ({"scales": ((8, 8), (9, 9)), "ratio_range": (0.5, 1)}, "ratio_range needs a single scale"),
        ({"scales": ((8, 8),), "ratio_range": (2, 1)}, "ratio_range should be 0 < lowest <= highest"),
    ],
)
def test_wrong_multi_scale(parameters, message):
    with pytest.raises(ConfigError, match=message):
        MultiScaleResize(**parameters)


# ---------------------------------------------------------------------------------------------- RandomFlip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    boxes=st.lists(st.tuples(*[st.floats(0, 4, width=32)] * 4), max_size=4),
    direction=st.sampled_from(["horizontal", "vertical", "diagonal"]),
)
def test_flipping_twice_gives_the_same(boxes, direction, example):
    boxes = tuple((x, y, x + w, y + h) for x, y, w, h in boxes)
    item = example(9, 8, boxes)
    flip = RandomFlip(prob=1.0, direction=direction)
    once = flip(item)
    twice = flip(once)
    assert torch.equal(twice["image"], item["image"])
    torch.testing.assert_close(
        twice["boxes"].as_subclass(torch.Tensor), item["boxes"].as_subclass(torch.Tensor), atol=1e-5, rtol=0
    )
    assert twice["geometry"] == item["geometry"]
    assert once["geometry"].flip != (False, False)


@pytest.mark.parametrize(
    ("prob", "direction", "expected"),
    [
        (0.0, "horizontal", {(False, False): 1.0}),
        (0.5, "horizontal", {(False, False): 0.5, (True, False): 0.5}),
        (0.6, ("horizontal", "vertical"), {(False, False): 0.4, (True, False): 0.3, (False, True): 0.3}),
        ((0.2, 0.8), ("diagonal", "vertical"), {(True, True): 0.2, (False, True): 0.8}),
    ],
)
def test_how_often(prob, direction, expected, example):
    flip = RandomFlip(prob=prob, direction=direction)
    torch.manual_seed(0)
    drawn = [flip(example())["geometry"].flip for _ in range(1000)]
    assert {way: round(drawn.count(way) / 1000, 1) for way in set(drawn)} == expected


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"prob": 1.5}, "prob"),
        ({"prob": (0.5, 0.5)}, "prob should be one number or one per direction"),
        ({"prob": (0.5, 0.6), "direction": ("horizontal", "vertical")}, "add up to at most 1"),
        ({"direction": ()}, "prob should be one number or one per direction"),
        ({"direction": "sideways"}, "direction"),
    ],
)
def test_wrong_flip(parameters, message):
    with pytest.raises(ConfigError, match=message):
        RandomFlip(**parameters)


# ------------------------------------------------------------------------------------------------------ Pad


def test_pad_fills_right_and_bottom(example):
    item = Pad(size=(10, 7), pad_val=(1, 2, 3))(example(6, 8))
    assert tuple(item["image"].shape) == (3, 7, 10)
    assert torch.equal(item["image"][:, :6, :8], example(6, 8)["image"])
    assert item["image"][:, 6, 0].tolist() == [1, 2, 3]
    assert item["image"][:, 0, 9].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"size_divisor": 32}, (32, 64)),
        ({"pad_to_square": True}, (40, 40)),
        ({"pad_to_square": True, "size_divisor": 16}, (48, 48)),
    ],
)
def test_padded_sizes(parameters, expected):
    assert Pad(**parameters).size_of((30, 40)) == expected


def test_too_small_for_the_image(example):
    with pytest.raises(
        DataError, match=r"7\.png: its 8 x 6 pixels do not fit into size=\(10, 5\); resize it first"
    ):
        Pad(size=(10, 5))(example(6, 8))


@pytest.mark.parametrize(
    "parameters", [{}, {"size": (8, 8), "size_divisor": 4}, {"size": (8, 8), "pad_to_square": True}]
)
def test_wrong_pad(parameters):
    with pytest.raises(ConfigError, match="size"):
        Pad(**parameters)


# ------------------------------------------------------------------------------------ PhotometricDistortion


def test_saturation_and_hue_are_those_of_hsv():
    torch.manual_seed(0)
    pixels = torch.rand(3, 5, 4) * 255
    pixels[:, 0, 0] = 0
    pixels[:, 0, 1] = 255
    pixels[:, 0, 2] = 77
    saturated, rotated = scale_saturation(pixels, 0.7), rotate_hue(pixels, -50.0)
    for row in range(5):
        for column in range(4):
            h, s, v = colorsys.rgb_to_hsv(*pixels[:, row, column].tolist())
            expected = torch.tensor(colorsys.hsv_to_rgb(h, s * 0.7, v))
            torch.testing.assert_close(saturated[:, row, column], expected, atol=1e-3, rtol=1e-5)
            expected = torch.tensor(colorsys.hsv_to_rgb((h - 50 / 360) % 1, s, v))
            torch.testing.assert_close(rotated[:, row, column], expected, atol=1e-3, rtol=1e-5)


def test_colours_change_and_nothing_else(example):
    still = PhotometricDistortion(
        brightness_delta=0, contrast_range=(1, 1), saturation_range=(1, 1), hue_delta=0, swap_channels=False
    )
    item = example(6, 8)
    for seed in range(8):
        torch.manual_seed(seed)
        assert torch.equal(still(item)["image"], item["image"])
    torch.manual_seed(0)
    changed = [PhotometricDistortion()(item) for _ in range(10)]
    assert sum(not torch.equal(one["image"], item["image"]) for one in changed) >= 8
    assert all(torch.equal(one["boxes"], item["boxes"]) for one in changed)


def test_brightness_stays_in_bounds(example):
    bright = PhotometricDistortion(brightness_delta=255, contrast_range=(4, 4))
    torch.manual_seed(0)
    images = [bright(example(6, 8))["image"] for _ in range(10)]
    assert max(int(image.max()) for image in images) == 255  # would wrap around to small numbers otherwise
    with pytest.raises(ConfigError, match=r"contrast_range should be \(lowest, highest\)"):
        PhotometricDistortion(contrast_range=(2, 1))
