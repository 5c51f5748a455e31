from __future__ import annotations

import pytest
import torch
from detcore_augment import CopyPaste
from hypothesis import given, settings
from hypothesis import strategies as st

from detcore.errors import ConfigError, DataError

ALL = {"selected": False, "bbox_occluded_thr": 0, "mask_occluded_thr": 0}


def test_an_object_is_pasted_and_hides_another(picture):
    first = picture((24, 32), ((2, 2, 12, 12), (20, 15, 30, 20)))
    second = picture((24, 32), ((8, 0, 16, 24),), labels=(2,))
    item = CopyPaste(**ALL).mix(first, [second])
    assert item["boxes"].tolist() == [[2, 2, 8, 12], [20, 15, 30, 20], [8, 0, 16, 24]]
    assert item["labels"].tolist() == [0, 1, 2]
    assert item["ignore"].tolist() == [False] * 3
    assert [int(mask.sum()) for mask in item["masks"]] == [60, 50, 192]
    assert torch.equal(item["image"][:, :, 8:16], second["image"][:, :, 8:16])
    assert torch.equal(item["image"][:, :, :8], first["image"][:, :, :8])
    assert item["geometry"] == first["geometry"]


@settings(deadline=None, max_examples=80)
@given(
    below=st.lists(st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(1, 12)] * 2), max_size=3),
    above=st.lists(st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 12)] * 2), max_size=3),
    size=st.sampled_from([(24, 32), (30, 30), (50, 20)]),
    seed=st.integers(0, 1000),
)
def test_boxes_and_masks_are_where_the_colours_are(below, above, size, seed, picture, seen, boxes_by_label):
    first = picture((24, 32), [(x, y, min(x + w, 32), min(y + h, 24)) for x, y, w, h in below])
    rows = [(min(x, size[1] - 1), min(y, size[0] - 1), w, h) for x, y, w, h in above]
    corners = [(x, y, min(x + w, size[1]), min(y + h, size[0])) for x, y, w, h in rows]
    second = picture(size, corners, labels=[3, 4, 5][: len(rows)])
    shown_before = seen(first["image"])
    torch.manual_seed(seed)
    item = CopyPaste(bbox_occluded_thr=0, mask_occluded_thr=0).mix(first, [second])
    shown, boxes = seen(item["image"]), boxes_by_label(item)
    masks = dict(zip(item["labels"].tolist(), item["masks"].as_subclass(torch.Tensor), strict=True))
    for label, extent in shown.items():
        if shown_before.get(label) == extent and label < 3:
            continue  # untouched: the box is as it was, whatever lies over it
        y, x = masks[label].nonzero().unbind(1)
        assert [float(v) for v in (x.min(), y.min(), x.max() + 1, y.max() + 1)] == extent
        box = torch.tensor(boxes[label])
        assert (box[:2] <= torch.tensor(extent[:2])).all()
        assert (box[2:] >= torch.tensor(extent[2:])).all()
    total = torch.stack(list(masks.values())).sum(0) if masks else torch.zeros(1)
    assert total.max() <= 1


@pytest.mark.parametrize(
    ("edge", "box_limit", "mask_limit", "state"),
    [
        (6, 4, 1000, "kept"),  # the box loses 4 pixels
        (6, 3, 1000, "left"),
        (6, 0, 59, "kept"),  # 60 pixels of the mask are left
        (6, 0, 60, "left"),
        (0, 100, 0, "gone"),
    ],
)
@pytest.mark.parametrize("leftover", ["ignore", "drop"])
def test_hidden_objects(edge, box_limit, mask_limit, state, leftover, picture):
    first = picture((24, 32), ((2, 2, 12, 12),))
    second = picture((24, 32), ((2 + edge, 0, 20, 24),), labels=(1,))
    paste = CopyPaste(
        selected=False, bbox_occluded_thr=box_limit, mask_occluded_thr=mask_limit, leftover=leftover
    )
    item = paste.mix(first, [second])
    there = state == "kept" or (state == "left" and leftover == "ignore")
    assert item["labels"].tolist() == ([0, 1] if there else [1])
    assert item["ignore"].tolist() == ([state == "left", False] if there else [False])


def test_regions_to_ignore_are_not_pasted_but_stay(picture):
    first = picture((24, 32), ((2, 2, 12, 12),), ignore=(0,))
    second = picture((24, 32), ((0, 0, 32, 24), (6, 0, 20, 24)), labels=(1, 2), ignore=(0,))
    item = CopyPaste(selected=False, leftover="drop").mix(first, [second])
    assert item["labels"].tolist() == [0, 2]
    assert item["ignore"].tolist() == [True, False]
    assert CopyPaste().mix(first, [picture(ignore=(0, 1, 2))]) is first


def test_how_many(picture):
    first, second = picture((24, 32), ()), picture((24, 32))
    torch.manual_seed(0)
    counts = [len(CopyPaste().mix(first, [second])["boxes"]) for _ in range(200)]
    assert set(counts) == {0, 1, 2, 3}
    assert {len(CopyPaste(max_num_pasted=1, selected=False).mix(first, [second])["boxes"])} == {1}
    assert len(CopyPaste(selected=False).mix(first, [second])["boxes"]) == 3


def test_without_masks(picture):
    first, second = (picture((24, 32), ((2, 2, 12, 12),), masks=False) for _ in range(2))
    with pytest.raises(DataError, match=r"7\.png: CopyPaste needs masks; set with_masks=True in the dataset"):
        CopyPaste().mix(first, [second])
    item = CopyPaste(paste_by_box=True, selected=False).mix(picture((24, 32), (), masks=False), [second])
    assert item["boxes"].tolist() == [[2, 2, 12, 12]]
    assert "masks" not in item
    assert torch.equal(item["image"], second["image"])


@pytest.mark.parametrize("parameters", [{"max_num_pasted": 0}, {"bbox_occluded_thr": -1}, {"prob": 2}])
def test_wrong_copy_paste(parameters):
    with pytest.raises(ConfigError, match=next(iter(parameters))):
        CopyPaste(**parameters)
