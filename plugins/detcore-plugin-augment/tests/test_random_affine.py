from __future__ import annotations

import math

import pytest
import torch
from detcore_augment import Mosaic, RandomAffine
from detcore_augment.pictures import warp_boxes, warp_image, warp_masks
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from detcore.errors import ConfigError, DataError
from detcore.structures import ImageGeometry

STILL = {
    "max_rotate_degree": 0,
    "max_translate_ratio": 0,
    "scaling_ratio_range": (1, 1),
    "max_shear_degree": 0,
}


def turn(degrees, size=(24, 32)):
    """Turns about the centre."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = size[1] / 2, size[0] / 2
    return torch.tensor(
        [[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y], [0, 0, 1]],
        dtype=torch.float64,
    )


@pytest.mark.parametrize("around", ["center", "corner"])
def test_nothing_drawn_changes_nothing(around, picture):
    before = picture()
    item = RandomAffine(**STILL, around=around)(before)
    for key in ("image", "boxes", "masks", "labels", "ignore"):
        assert torch.equal(item[key], before[key])
    assert item["geometry"] == before["geometry"]


def test_a_quarter_turn_is_exact(picture):
    square = picture((24, 24), ((2, 3, 10, 11), (12, 2, 23, 9)))
    matrix = turn(90, (24, 24))
    image = warp_image(square["image"], matrix, (24, 24), (0, 0, 0))
    assert torch.equal(image, square["image"].as_subclass(torch.Tensor).rot90(-1, (1, 2)))
    masks = warp_masks(square["masks"], matrix, (24, 24))
    assert torch.equal(masks, square["masks"].as_subclass(torch.Tensor).rot90(-1, (1, 2)))
    boxes = warp_boxes(square["boxes"], matrix)
    torch.testing.assert_close(boxes, torch.tensor([[13.0, 2, 21, 10], [15, 12, 22, 23]]))


@pytest.mark.parametrize("degrees", [-30, 7, 45, 170])
def test_pixels_are_torchvisions(degrees, picture):
    image = picture()["image"]
    own = warp_image(image, turn(degrees), (24, 32), (0, 0, 0))
    theirs = F.rotate(image, -degrees, InterpolationMode.BILINEAR)
    assert (own.int() - theirs.int()).abs().max() <= 1


@settings(deadline=None, max_examples=80)
@given(
    box=st.tuples(st.integers(0, 50), st.integers(0, 40), st.integers(6, 30), st.integers(6, 30)),
    degrees=st.floats(0, 180),
    shear=st.floats(0, 30),
    around=st.sampled_from(["center", "corner"]),
    border=st.tuples(st.integers(-10, 10), st.integers(-10, 10)),
    seed=st.integers(0, 1000),
)
def test_boxes_are_where_the_colours_are(
    box, degrees, shear, around, border, seed, picture, seen, boxes_by_label
):
    x, y, w, h = box
    before = picture((48, 64), ((x, y, min(x + w, 64), min(y + h, 48)),))
    torch.manual_seed(seed)
    item = RandomAffine(
        max_rotate_degree=degrees,
        max_shear_degree=shear,
        around=around,
        border=border,
        min_bbox_size=0,
        min_area_ratio=0,
    )(before)
    size = (48 + 2 * border[1], 64 + 2 * border[0])
    assert tuple(item["image"].shape[-2:]) == size
    boxes, extents = boxes_by_label(item), seen(item["image"], tolerance=100)
    for label, extent in extents.items():
        found, extent = torch.tensor(boxes[label]), torch.tensor(extent)
        assert (found[:2] <= extent[:2] + 1).all()  # nothing of it is outside of its box
        assert (found[2:] >= extent[2:] - 1).all()
        inner = (extent[:2] > 0).all() and (extent[2:] < torch.tensor(size[::-1])).all()
        if inner:  # and the box is no larger than its corners ask for, which are thin
            torch.testing.assert_close(found, extent, atol=3.5, rtol=0)


@settings(deadline=None, max_examples=60)
@given(
    factor=st.floats(0.5, 2),
    move=st.floats(0, 0.5),
    border=st.tuples(st.integers(-5, 9), st.integers(-5, 9)),
    flipped=st.booleans(),
    around=st.sampled_from(["center", "corner"]),
    seed=st.integers(0, 1000),
)
def test_the_way_back_is_kept_where_nothing_is_turned(factor, move, border, flipped, around, seed, picture):
    from detcore_data.functional import flip
    from detcore_data.ground_truth import to_file_pixels

    before = flip(picture(boxes=((2, 3, 10, 11),)), flipped, flipped)
    torch.manual_seed(seed)
    affine = RandomAffine(
        max_rotate_degree=0, max_shear_degree=0, max_translate_ratio=move,
        scaling_ratio_range=(factor, factor), border=border, around=around,
    )  # fmt: skip
    item = affine(before)
    size = tuple(item["image"].shape[-2:])
    torch.manual_seed(seed)
    whole = warp_boxes(before["boxes"], affine.draw((24, 32), size))
    back = to_file_pixels(whole.double(), size, item["geometry"])
    torch.testing.assert_close(back, torch.tensor([[2.0, 3, 10, 11]]).double(), atol=1e-4, rtol=0)


def test_what_is_turned_is_a_picture_of_its_own(picture):
    assert RandomAffine(border=(4, 5))(picture())["geometry"] == ImageGeometry((34, 40))


def test_about_the_centre_or_the_corner(picture):
    item = RandomAffine(**{**STILL, "scaling_ratio_range": (0.5, 0.5)})(picture(boxes=((8, 4, 24, 20),)))
    assert item["boxes"].tolist() == [[12, 8, 20, 16]]
    corner = RandomAffine(**{**STILL, "scaling_ratio_range": (0.5, 0.5)}, around="corner")
    assert corner(picture(boxes=((8, 4, 24, 20),)))["boxes"].tolist() == [[4, 2, 12, 10]]


def test_boxes_around_turned_masks(picture):
    before = picture((40, 40), ((14, 14, 26, 26),))
    y, x = torch.meshgrid(torch.arange(40) - 19.5, torch.arange(40) - 19.5, indexing="ij")
    before["masks"][0] = x.square() + y.square() < 36
    off = {"loose": [], "tight": []}
    for seed in range(20):
        for name, boxes in off.items():
            torch.manual_seed(seed)
            turned = RandomAffine(**{**STILL, "max_rotate_degree": 90}, recompute_bbox=name == "tight")(
                before
            )
            boxes.append(float((turned["boxes"][0] - torch.tensor([14, 14, 26, 26])).abs().max()))
    assert max(off["loose"]) > 1.5  # the turned square's corners
    assert max(off["tight"]) <= 1  # a disc stays one


def test_after_a_mosaic_the_border_cuts_it_out(picture):
    pieces = [picture((24, 32), ((2, 3, 30, 22),), labels=(label,)) for label in range(4)]
    mosaic = Mosaic(img_scale=(32, 24), center_ratio_range=(1, 1)).mix(pieces[0], pieces[1:])
    item = RandomAffine(**STILL, border=(-16, -12))(mosaic)
    assert tuple(item["image"].shape) == (3, 24, 32)
    assert item["boxes"].tolist() == [[0, 0, 14, 10], [18, 0, 32, 10], [0, 15, 14, 24], [18, 15, 32, 24]]


def test_a_border_that_leaves_nothing_names_the_file(picture):
    with pytest.raises(DataError, match=r"7\.png: border=\(-16, -12\) leaves nothing of its 32 x 24 pixels"):
        RandomAffine(border=(-16, -12))(picture())


def test_many_masks_are_warped_in_pieces(picture, monkeypatch):
    masks = torch.rand(7, 24, 32) < 0.5
    whole = warp_masks(masks, turn(20), (30, 30))
    monkeypatch.setattr("detcore_augment.pictures._CHUNK", 1000)
    assert torch.equal(warp_masks(masks, turn(20), (30, 30)), whole)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"scaling_ratio_range": (1.5, 0.5)}, "scaling_ratio_range should be 0.01 <= lowest <= highest"),
        ({"max_shear_degree": 45}, "max_shear_degree"),
        ({"max_translate_ratio": 2}, "max_translate_ratio"),
        ({"around": "top"}, "around"),
    ],
)
def test_wrong_affine(parameters, message):
    with pytest.raises(ConfigError, match=message):
        RandomAffine(**parameters)
