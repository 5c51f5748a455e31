from __future__ import annotations

import pytest
import torch
from detcore_augment import MixUp
from hypothesis import given, settings
from hypothesis import strategies as st

from detcore.errors import ConfigError

PLAIN = {"img_scale": (32, 24), "ratio_range": (1, 1), "flip_ratio": 0.0}


def test_pixels_are_weighed_and_objects_joined(picture):
    first, second = picture((24, 32), ((2, 3, 10, 11),)), picture((24, 32), ((20, 5, 30, 9),), labels=(1,))
    item = MixUp(**PLAIN, weight=0.75).mix(first, [second])
    assert item["boxes"].tolist() == [[2, 3, 10, 11], [20, 5, 30, 9]]
    assert item["labels"].tolist() == [0, 1]
    mean = first["image"].float() * 0.75 + second["image"].float() * 0.25
    assert torch.equal(item["image"].float(), mean.round())
    assert torch.equal(item["masks"], torch.cat((first["masks"], second["masks"])))
    assert item["geometry"] == first["geometry"]


def test_mirrored(picture, boxes_by_label):
    first, second = picture(boxes=()), picture(boxes=((20, 5, 30, 9),))
    item = MixUp(**{**PLAIN, "flip_ratio": 1.0}).mix(first, [second])
    assert boxes_by_label(item) == {0: [2, 5, 12, 9]}


@settings(deadline=None, max_examples=60)
@given(
    box=st.tuples(st.integers(0, 28), st.integers(0, 20), st.integers(3, 12), st.integers(3, 12)),
    factor=st.sampled_from([0.5, 0.8, 1.0, 1.3, 2.5]),
    size=st.sampled_from([(24, 32), (7, 30), (40, 20), (60, 60)]),
    seed=st.integers(0, 1000),
)
def test_boxes_are_where_the_colours_are(box, factor, size, seed, picture, seen, boxes_by_label):
    x, y, w, h = box
    second = picture((24, 32), ((x, y, min(x + w, 32), min(y + h, 24)),))
    torch.manual_seed(seed)
    mix = MixUp(
        img_scale=(32, 24), ratio_range=(factor, factor), weight=0.0, min_bbox_size=0, min_area_ratio=0
    )
    item = mix.mix(picture(size, ()), [second])
    assert tuple(item["image"].shape[-2:]) == size
    for label, extent in seen(item["image"], tolerance=90).items():
        torch.testing.assert_close(
            torch.tensor(boxes_by_label(item)[label]), torch.tensor(extent), atol=2.6, rtol=0
        )


def test_a_second_picture_without_objects_is_not_mixed_in(picture):
    first = picture()
    assert MixUp().mix(first, [picture(boxes=())]) is first


def test_weights_of_a_beta_distribution(picture):
    mix = MixUp(**PLAIN, alpha=1.5)
    black, white = picture((24, 32), ()), picture((24, 32), ((0, 0, 32, 24),), labels=(6,))
    black["image"].zero_()
    torch.manual_seed(0)
    weights = torch.tensor([255 - int(mix.mix(black, [white])["image"][0, 0, 0]) for _ in range(400)]) / 255
    assert abs(float(weights.mean()) - 0.5) < 0.03
    assert abs(float(weights.var()) - 1 / 16) < 0.01  # of Beta(1.5, 1.5)


def test_leftovers_of_the_second_picture_only(picture):
    first = picture((24, 32), ((2, 3, 3, 4),))
    second = picture((48, 64), ((0, 0, 64, 48),), labels=(1,))
    item = MixUp(img_scale=(64, 48), ratio_range=(1, 1), min_bbox_size=5, min_area_ratio=0.5).mix(
        first, [second]
    )
    assert item["labels"].tolist() == [0, 1]
    assert item["ignore"].tolist() == [False, True]  # a quarter of it is in the picture


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"ratio_range": (0, 1)}, r"ratio_range should be 0.01 <= lowest <= highest, got \(0.0, 1.0\)"),
        ({"alpha": 0}, "alpha"),
        ({"weight": 1.5}, "weight"),
        ({"flip_ratio": -1}, "flip_ratio"),
    ],
)
def test_wrong_mix_up(parameters, message):
    with pytest.raises(ConfigError, match=message):
        MixUp(**parameters)
