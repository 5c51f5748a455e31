from __future__ import annotations

import pytest
import torch
from detcore_augment import Mosaic
from hypothesis import given, settings
from hypothesis import strategies as st

from detcore.errors import ConfigError
from detcore.structures import ImageGeometry


def four(picture, size=(12, 16), box=(4, 3, 12, 9)):
    """Four pictures with an object each, of labels 0..3."""
    return [picture(size, (box,), labels=(label,), image_id=label) for label in range(4)]


def test_four_pictures_meet_in_the_centre(picture):
    mosaic = Mosaic(img_scale=(16, 12), center_ratio_range=(1, 1))
    item = mosaic.mix(four(picture)[0], four(picture)[1:])
    assert tuple(item["image"].shape) == (3, 24, 32)
    assert item["boxes"].tolist() == [[4, 3, 12, 9], [20, 3, 28, 9], [4, 15, 12, 21], [20, 15, 28, 21]]
    assert item["labels"].tolist() == [0, 1, 2, 3]
    assert item["ignore"].tolist() == [False] * 4
    assert item["geometry"] == ImageGeometry((24, 32))
    for row, piece in enumerate(four(picture)):
        y, x = 12 * (row // 2), 16 * (row % 2)
        assert torch.equal(item["image"][:, y : y + 12, x : x + 16], piece["image"])
        assert torch.equal(item["masks"][row, y : y + 12, x : x + 16], piece["masks"][0])
        assert item["masks"][row].sum() == piece["masks"].sum()


@settings(deadline=None, max_examples=30)
@given(
    center=st.floats(0, 2),
    box=st.tuples(*[st.integers(0, 11)] * 2, st.integers(1, 5), st.integers(1, 5)),
    sizes=st.lists(st.sampled_from([(12, 16), (6, 16), (12, 5), (3, 4), (24, 32)]), min_size=4, max_size=4),
)
def test_boxes_are_where_the_colours_are(center, box, sizes, picture, seen, boxes_by_label):
    x, y, w, h = box
    pieces = []
    for label, (height, width) in enumerate(sizes):
        x1, y1 = min(x, width - 1), min(y, height - 1)
        corners = (x1, y1, min(x1 + w, width), min(y1 + h, height))
        pieces.append(picture((height, width), (corners,), labels=(label,)))
    mosaic = Mosaic(
        img_scale=(16, 12), center_ratio_range=(center, center), min_bbox_size=0, min_area_ratio=0
    )
    item = mosaic.mix(pieces[0], pieces[1:])
    found, boxes = seen(item["image"], tolerance=90), boxes_by_label(item)
    assert set(found) <= {0, 1, 2, 3}
    for label, extent in found.items():  # a picture that is scaled has soft edges
        if label not in boxes:
            assert min(extent[2] - extent[0], extent[3] - extent[1]) <= 2
            continue
        torch.testing.assert_close(torch.tensor(boxes[label]), torch.tensor(extent), atol=3.1, rtol=0)
    exact = {label for label, size in enumerate(sizes) if size in ((12, 16), (6, 16), (12, 5))}
    assert {label: box for label, box in boxes.items() if label in exact} == {
        label: box for label, box in seen(item["image"]).items() if label in exact
    }


CUT = {
    0: [0.0, 0.0, 4.0, 3.0],  # a quarter of it
    1: [12.0, 0.0, 20.0, 3.0],  # half
    2: [0.0, 9.0, 4.0, 15.0],  # half
    3: [12.0, 9.0, 20.0, 15.0],
}


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize(
    ("leftover", "ratio", "size", "kept", "ignored"),
    [
        ("drop", 0.0, 0, (0, 1, 2, 3), ()),
        ("drop", 0.5, 0, (1, 2, 3), ()),
        ("drop", 0.51, 0, (3,), ()),
        ("ignore", 0.51, 0, (0, 1, 2, 3), (0, 1, 2)),
        ("ignore", 0.0, 3.5, (2, 3), ()),
        ("ignore", 0.51, 3.5, (2, 3), (2,)),
        ("ignore", 0.0, 4.5, (3,), ()),
    ],
)
def test_objects_that_are_cut(leftover, ratio, size, kept, ignored, masks, picture, boxes_by_label):
    """The centre is at (8, 6): of the upper and left pictures one half is beyond the canvas."""
    pieces = four(picture)
    if not masks:
        for piece in pieces:
            del piece["masks"]
    mosaic = Mosaic(
        img_scale=(16, 12),
        center_ratio_range=(0.5, 0.5),
        min_area_ratio=ratio,
        min_bbox_size=size,
        leftover=leftover,
    )
    item = mosaic.mix(pieces[0], pieces[1:])
    assert boxes_by_label(item) == {label: CUT[label] for label in kept}
    assert item["ignore"].tolist() == [label in ignored for label in kept]
    if masks:
        assert [int(mask.sum()) for mask in item["masks"]] == [
            (CUT[k][2] - CUT[k][0]) * (CUT[k][3] - CUT[k][1]) for k in kept
        ]


def test_regions_to_ignore_stay(picture):
    pieces = four(picture)
    pieces[0]["ignore"][:] = True
    mosaic = Mosaic(img_scale=(16, 12), center_ratio_range=(0.5, 0.5), min_area_ratio=1.0, min_bbox_size=9)
    item = mosaic.mix(pieces[0], pieces[1:])
    assert item["labels"].tolist() == [0]
    assert item["ignore"].tolist() == [True]


def test_how_often(picture):
    mosaic = Mosaic(prob=0.3)
    torch.manual_seed(0)
    drawn = [mosaic.others(5) for _ in range(1000)]
    assert 250 < sum(len(others) == 3 for others in drawn) < 350
    assert {len(others) for others in drawn} == {0, 3}
    assert {index for others in drawn for index in others} == set(range(5))
    assert all(Mosaic().others(2) for _ in range(50))
    assert not any(Mosaic(prob=0.0).others(2) for _ in range(50))


def test_what_is_not_covered_has_the_colour(picture):
    item = Mosaic(img_scale=(16, 12), center_ratio_range=(1.5, 1.5), pad_val=(1, 2, 3)).mix(
        four(picture)[0], four(picture)[1:]
    )
    assert item["image"][:, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"center_ratio_range": (1.0, 0.5)}, r"center_ratio_range should be 0 <= lowest <= highest <= 2"),
        ({"center_ratio_range": (0.5, 2.5)}, r"center_ratio_range should be 0 <= lowest <= highest <= 2"),
        ({"img_scale": (0, 5)}, r"img_scale\.0: .*greater than or equal to 1"),
        ({"pad_val": 256}, "pad_val"),
        ({"leftover": "keep"}, "leftover"),
    ],
)
def test_wrong_mosaic(parameters, message):
    with pytest.raises(ConfigError, match=message):
        Mosaic(**parameters)
