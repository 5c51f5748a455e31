from __future__ import annotations

import pytest
import torch
from detcore_data import CocoDataset, RandomFlip, Resize, records_of, seeded

from detcore.interfaces import Dataset


def test_records_are_taken_from_where_they_are(coco):
    data = CocoDataset(**coco.write())
    assert records_of(data) is data.records
    assert records_of(seeded(data, 3)) is data.records


class Reader(Dataset):
    """Somebody else's dataset: no records."""

    def __init__(self, *, source: Dataset) -> None:
        self.source = source
        self.class_map = source.class_map

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        return self.source[index]


def test_a_dataset_without_records_is_read(coco):
    transforms = (Resize(scale=(57, 33), keep_ratio=False), RandomFlip(prob=1.0))
    data = CocoDataset(**coco.write(), transforms=transforms)
    found, expected = records_of(Reader(source=data)), data.records
    for name in ("image_ids", "sizes", "offsets"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    for name in ("labels", "ignore"):
        assert torch.equal(getattr(found.annotations, name), getattr(expected.annotations, name))
    torch.testing.assert_close(found.annotations.boxes, expected.annotations.boxes, atol=1e-4, rtol=0)


def test_a_dataset_without_objects_is_read(coco):
    coco.data["annotations"] = []
    found = records_of(Reader(source=CocoDataset(**coco.write())))
    assert len(found.annotations) == 0
    assert len(found) == 3


def test_records(coco):
    records = CocoDataset(**coco.write()).records
    record = records[1]
    assert (record.file, record.image_id, record.size, record.rows) == ("3.png", 3, (30, 40), slice(1, 3))
    assert records.image_of.tolist() == [0, 1, 1]
    fewer = records.keep_images(torch.tensor([False, True, True]))
    assert [fewer[i].file for i in range(2)] == ["3.png", "8.png"]
    assert fewer.offsets.tolist() == [0, 2, 2]
    assert fewer.annotations.labels.tolist() == [1, 2]
    one = records.keep_annotations(torch.tensor([True, False, True]))
    assert one.offsets.tolist() == [0, 1, 2, 2]
    with pytest.raises(IndexError):
        records[3]
