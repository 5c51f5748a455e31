"""RandomCrop, MinIoURandomCrop, Expand and FilterAnnotations."""

from __future__ import annotations

import pytest
import torch
from detcore_augment import Expand, FilterAnnotations, MinIoURandomCrop, RandomCrop
from detcore_data.functional import flip
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from detcore.errors import ConfigError

ALL = {"min_bbox_size": 0, "leftover": "drop"}
scenes = st.builds(
    lambda rows: tuple((x, y, min(x + w, 32), min(y + h, 24)) for x, y, w, h in rows),
    st.lists(
        st.tuples(st.integers(0, 31), st.integers(0, 23), st.integers(1, 20), st.integers(1, 20)), max_size=4
    ),
)


@settings(deadline=None, max_examples=100)
@given(
    boxes=scenes,
    flipped=st.booleans(),
    transform=st.sampled_from(
        [
            RandomCrop(crop_size=(17, 11), allow_negative_crop=True, min_area_ratio=0, **ALL),
            RandomCrop(crop_size=(0.2, 0.2), crop_type="relative_range", min_area_ratio=0, **ALL),
            RandomCrop(
                crop_size=(3, 30), crop_type="absolute_range", min_area_ratio=0, recompute_bbox=True, **ALL
            ),
            Expand(mean=1, ratio_range=(1, 3), prob=0.9),
        ]
    ),
    seed=st.integers(0, 1000),
)
def test_boxes_are_where_the_colours_are(boxes, flipped, transform, seed, picture, seen, boxes_by_label):
    """To the pixel, where no object hides another; masks are the colours' pixels."""
    before = picture(boxes=boxes)
    alone = [row for row in range(len(boxes)) if torch.equal(before["masks"][row].sum(), _area(boxes[row]))]
    torch.manual_seed(seed)
    item = transform(flip(before, flipped, False))
    found, shown = boxes_by_label(item), seen(item["image"])
    assert {k: v for k, v in found.items() if k in alone} == {k: v for k, v in shown.items() if k in alone}
    for label, mask in zip(item["labels"].tolist(), item["masks"].as_subclass(torch.Tensor), strict=True):
        if not mask.any():  # another lies over it
            assert label not in shown
            continue
        y, x = mask.nonzero().unbind(1)
        assert [float(v) for v in (x.min(), y.min(), x.max() + 1, y.max() + 1)] == shown[label]


def _area(box):
    return torch.tensor((box[2] - box[0]) * (box[3] - box[1]))


# ----------------------------------------------------------------------------------------------- RandomCrop


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"crop_size": (20, 10)}, (10, 20)),
        ({"crop_size": (200, 10)}, (10, 32)),
        ({"crop_size": (0.5, 0.25), "crop_type": "relative"}, (6, 16)),
        ({"crop_size": (7, 7), "crop_type": "absolute_range"}, (7, 7)),
        ({"crop_size": (1.0, 1.0), "crop_type": "relative_range"}, (24, 32)),
        ({"crop_size": (0.001, 0.001), "crop_type": "relative"}, (1, 1)),
    ],
)
def test_sizes(parameters, expected):
    assert RandomCrop(**parameters).size_of((24, 32)) == expected


def test_every_place_is_drawn(picture):
    crop = RandomCrop(crop_size=(30, 23), allow_negative_crop=True)
    torch.manual_seed(0)
    drawn = {crop(picture())["geometry"].origin for _ in range(300)}
    assert drawn == {(float(x), float(y)) for x in range(3) for y in range(2)}


def test_a_crop_has_an_object(picture):
    """One small object in a large picture: nearly every window misses it."""
    item = picture((300, 400), ((350, 10, 356, 15),))
    torch.manual_seed(0)
    for _ in range(20):
        assert len(RandomCrop(crop_size=(20, 20))(item)["boxes"]) == 1
    free = RandomCrop(crop_size=(20, 20), allow_negative_crop=True)
    assert sum(len(free(item)["boxes"]) for _ in range(20)) < 3


def test_regions_to_ignore_do_not_count_as_objects(picture):
    item = picture((300, 400), ((0, 0, 400, 300), (350, 10, 356, 15)), ignore=(0,))
    torch.manual_seed(0)
    for _ in range(10):
        found = RandomCrop(crop_size=(20, 20))(item)
        assert sorted(found["ignore"].tolist()) == [False, True]


@pytest.mark.reliability(
    area="labels",
    fault="a crop inside of an object that fills the image",
    outcome="what is left of the object is a region to ignore, not background",
)
def test_inside_of_a_large_object(picture):
    """A hundredth of it is left: that is no background."""
    item = picture((300, 400), ((0, 0, 400, 300),))
    torch.manual_seed(0)
    found = RandomCrop(crop_size=(20, 20))(item)
    assert (found["boxes"].tolist(), found["ignore"].tolist()) == ([[0, 0, 20, 20]], [True])
    assert len(RandomCrop(crop_size=(20, 20), leftover="drop")(item)["boxes"]) == 0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"crop_size": (0.5, 0.5)}, "crop_size should be whole pixels for 'absolute'"),
        (
            {"crop_size": (2, 3), "crop_type": "relative"},
            r"crop_size should be fractions in \(0, 1\] for 'relative'",
        ),
        ({"crop_size": (9, 3), "crop_type": "absolute_range"}, "crop_size should be 1 <= lowest <= highest"),
        ({}, "required parameter of RandomCrop is missing"),
    ],
)
def test_wrong_crop(parameters, message):
    with pytest.raises(ConfigError, match=message):
        RandomCrop(**parameters)


# ------------------------------------------------------------------------------------------ MinIoURandomCrop


@settings(deadline=None, max_examples=60)
@given(boxes=scenes, least=st.sampled_from([0.1, 0.3, 0.7]), seed=st.integers(0, 1000))
def test_windows_overlap_every_object(boxes, least, seed, picture):
    before = picture(boxes=boxes, masks=False)
    torch.manual_seed(seed)
    found = MinIoURandomCrop()._window(before, least)
    if found is None:
        assert boxes
        return
    x1, y1, x2, y2 = found.tolist()
    assert 0 <= x1 < x2 <= 32
    assert 0 <= y1 < y2 <= 24
    assert 0.5 <= (y2 - y1) / (x2 - x1) <= 2
    assert (x2 - x1) >= int(0.3 * 32)
    assert (y2 - y1) >= int(0.3 * 24)
    if boxes:
        assert (box_iou(found[None], before["boxes"].as_subclass(torch.Tensor)) >= least).all()


@pytest.mark.parametrize("leftover", ["drop", "ignore"])
def test_objects_whose_centre_is_outside(leftover, picture, seen, boxes_by_label):
    before = picture((40, 40), ((0, 0, 12, 40), (14, 4, 36, 36)))
    crop = MinIoURandomCrop(leftover=leftover, min_bbox_size=0)
    torch.manual_seed(0)
    outside = 0
    for _ in range(60):
        item = crop(before)
        boxes, shown = boxes_by_label(item), seen(item["image"])
        assert len(boxes) >= 1
        assert all(shown[label] == box for label, box in boxes.items())
        outside += int(item["ignore"].sum())
        assert leftover == "drop" or boxes == shown
    assert (outside > 0) == (leftover == "ignore")


def test_nothing_is_cut_now_and_then(picture):
    torch.manual_seed(0)
    crop = MinIoURandomCrop(min_ious=(0.9,))
    whole = [crop(picture())["image"].shape == (3, 24, 32) for _ in range(60)]
    assert 10 < sum(whole) < 60


def test_a_sliver_cannot_be_cut_to_shape(picture):
    """No window between 1:2 and 2:1 of a third of a line: it ends all the same."""
    assert MinIoURandomCrop(min_crop_size=0.9)(picture((1, 200), ()))["image"].shape == (3, 1, 200)


@pytest.mark.parametrize("parameters", [{"min_ious": ()}, {"min_ious": (1.5,)}, {"min_crop_size": 0}])
def test_wrong_min_iou_crop(parameters):
    with pytest.raises(ConfigError, match=next(iter(parameters))):
        MinIoURandomCrop(**parameters)


# ----------------------------------------------------------------------------------------------------- Expand


def test_expand(picture):
    before = picture()
    torch.manual_seed(1)
    item = Expand(mean=(1, 2, 3), ratio_range=(2, 2), prob=1.0)(before)
    assert tuple(item["image"].shape) == (3, 48, 64)
    x, y = (-int(v) for v in item["geometry"].origin)
    assert torch.equal(item["image"][:, y : y + 24, x : x + 32], before["image"])
    assert torch.equal(item["boxes"], before["boxes"] + torch.tensor([x, y, x, y]))
    corner = (0, 0) if (x, y) != (0, 0) else (47, 63)
    assert item["image"][:, corner[0], corner[1]].tolist() == [1, 2, 3]
    assert Expand(prob=0.0)(before)["image"].shape == (3, 24, 32)
    with pytest.raises(ConfigError, match="ratio_range should be 1 <= lowest <= highest"):
        Expand(ratio_range=(0.5, 2))


# ----------------------------------------------------------------------------------------- FilterAnnotations


@pytest.mark.parametrize(
    ("parameters", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"min_gt_bbox_wh": (4, 1)}, [0, 2, 3]),
        ({"min_gt_bbox_wh": (1, 5)}, [0, 1, 3]),
        ({"max_aspect_ratio": 2}, [0, 3]),
        ({"min_gt_mask_area": 17}, [0, 1, 3]),
    ],
)
@pytest.mark.parametrize("leftover", ["drop", "ignore"])
def test_filter(parameters, kept, leftover, picture):
    before = picture(boxes=((2, 3, 10, 11), (12, 2, 15, 9), (14, 12, 22, 14), (28, 20, 29, 21)), ignore=(3,))
    item = FilterAnnotations(**parameters, leftover=leftover)(before)
    if leftover == "drop":
        assert item["labels"].tolist() == kept
        assert len(item["masks"]) == len(kept)
    else:
        assert item["ignore"].tolist() == [row not in kept or row == 3 for row in range(4)]
    assert not before["ignore"][:3].any()
