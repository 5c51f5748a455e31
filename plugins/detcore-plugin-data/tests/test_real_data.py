"""Real annotation files of three kinds; skipped where they are not there."""

from __future__ import annotations

import json

import pytest
import torch
from detcore_data import CocoDataset, KittiDataset, VocDataset

CELLS = ("RBC", "WBC", "Platelets")


@pytest.mark.parametrize(("split", "images", "boxes"), [("train", 291, 3860), ("val", 73, 1026)])
def test_bccd_is_the_same_from_xml_and_from_json(real_data, split, images, boxes):
    root = real_data("bccd")
    voc = VocDataset(
        root=root, annotations="annotations", images="images", split=f"{split}.txt", classes=CELLS
    )
    coco = CocoDataset(root=root, annotations=f"instances_{split}.json", images="images")
    assert len(voc) == len(coco) == images
    assert len(voc.records.annotations) == len(coco.records.annotations) == boxes
    assert voc.class_map.names == coco.class_map.names == CELLS
    for i in range(images):
        assert voc.records[i].file == coco.records[i].file
        assert voc.records[i].size == coco.records[i].size
        first, second = (data.records.annotations.select(data.records[i].rows) for data in (voc, coco))
        assert torch.equal(first.boxes, second.boxes)
        assert torch.equal(first.labels, second.labels)
        assert torch.equal(first.ignore, second.ignore)
    for i in range(0, images, 30):
        assert torch.equal(voc[i]["boxes"], coco[i]["boxes"])
        assert torch.equal(voc[i]["image"], coco[i]["image"])


def test_bccd_has_two_boxes_without_extent(real_data):
    root = real_data("bccd")
    data = VocDataset(root=root, annotations="annotations", images="images")
    assert data.counts.degenerate == 2
    assert data.class_map.names == tuple(sorted(CELLS))
    assert len(data.records.annotations) == 3860 + 1026


@pytest.mark.parametrize("split", ["train", "val"])
def test_kitti_is_the_same_from_text_and_from_json(real_data, split):
    root = real_data("kitti_tiny")
    images = "training/image_2"
    kitti = KittiDataset(root=root, annotations="training/label_2", images=images, split=f"{split}.txt")
    coco = CocoDataset(root=root, annotations=f"instances_{split}.json", images=images)
    regions = json.loads((root / "dontcare.json").read_text())
    assert len(kitti) == len(coco)
    assert kitti.class_map.names == coco.class_map.names
    seen = 0
    for i in range(len(kitti)):
        first, second = kitti[i], coco[i]
        real = ~first["ignore"]
        assert torch.equal(first["image"], second["image"])
        torch.testing.assert_close(first["boxes"][real], second["boxes"][:], atol=1e-3, rtol=0)
        assert torch.equal(first["labels"][real], second["labels"])
        expected = torch.tensor(regions.get(kitti.records[i].file, [])).reshape(-1, 4)
        found = first["boxes"].as_subclass(torch.Tensor)[~real]
        assert len(found) == len(expected)
        torch.testing.assert_close(found[:, 2:] - found[:, :2], expected[:, 2:], atol=1e-2, rtol=0)
        seen += len(found)
    assert seen > 0


def test_nuts_polygons(real_data):
    root = real_data("nuts")
    data = CocoDataset(root=root, annotations="annotations/trainval.json", images="images", with_masks=True)
    assert (len(data), len(data.records.annotations)) == (18, 165)
    for i in range(0, 18, 5):
        item = data[i]
        areas = data.records.annotations.areas[data.records[i].rows]
        torch.testing.assert_close(item["masks"].flatten(1).sum(1).double(), areas, rtol=0.02, atol=5)
        for mask, box in zip(item["masks"], item["boxes"], strict=True):
            rows, columns = mask.nonzero().unbind(1)
            found = torch.stack((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
            assert (found - box).abs().max() <= 2
