from __future__ import annotations

import json

import pytest
import torch
from detcore_data import CocoDataset, ShapesDataset, shapes

from detcore.errors import ConfigError


def test_it_is_made_of_the_seed(tmp_path):
    first, again = (ShapesDataset(root=tmp_path / name, length=8, seed=3) for name in ("a", "b"))
    other = ShapesDataset(root=tmp_path / "a", length=8, seed=4)
    assert all(torch.equal(first[i]["image"], again[i]["image"]) for i in range(8))
    assert all(torch.equal(first[i]["boxes"], again[i]["boxes"]) for i in range(8))
    assert not torch.equal(first[0]["image"], other[0]["image"])


def test_the_pictures_are_frozen(tmp_path):
    data = ShapesDataset(root=tmp_path, length=5)
    assert [data[i]["labels"].tolist() for i in range(5)] == [[2], [], [], [0, 0], [2, 1, 2]]
    assert data[4]["boxes"][0].tolist() == pytest.approx([66.8, 25.65, 88.28, 49.01], abs=1e-4)
    assert data[0]["image"].long().sum().item() == pytest.approx(
        6881771, rel=1e-4
    )  # Pillow's versions differ


def test_content(tmp_path):
    data = ShapesDataset(root=tmp_path, length=40, size=(64, 96), with_masks=True)
    assert len(data) == 40
    assert data.class_map.names == ("circle", "square", "triangle")
    assert set(data.records.annotations.labels.tolist()) == {0, 1, 2}
    assert 0 < data.counts.empty_images < 20
    sides = data.records.annotations.boxes[:, 2:]
    assert sides.min() < 12
    assert sides.max() > 20
    for i in range(10):
        item = data[i]
        assert tuple(item["image"].shape) == (3, 64, 96)
        for mask, box in zip(item["masks"], item["boxes"], strict=True):
            rows, columns = mask.nonzero().unbind(1)
            found = torch.stack((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
            assert (found - box).abs().max() <= 1.5


def test_it_is_a_coco_dataset_on_disk(tmp_path):
    data = ShapesDataset(root=tmp_path, length=5)
    coco = CocoDataset(annotations=data.folder / "instances.json", images=data.folder / "images")
    assert all(torch.equal(coco[i]["boxes"], data[i]["boxes"]) for i in range(5))
    content = json.loads((data.folder / "instances.json").read_text())
    assert all(len(row["segmentation"][0]) >= 6 for row in content["annotations"])


def test_it_is_made_once(tmp_path):
    data = ShapesDataset(root=tmp_path, length=4)
    marker = data.folder / "images" / "marker"
    marker.touch()
    assert ShapesDataset(root=tmp_path, length=4).folder == data.folder
    assert marker.exists()
    assert ShapesDataset(root=tmp_path, length=4, empty=0.5).folder != data.folder
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == set()


def test_another_process_may_be_faster(tmp_path, monkeypatch):
    write = shapes._write

    def slow(folder, artist, length):
        monkeypatch.undo()
        ShapesDataset(root=tmp_path, length=4)  # the other one
        write(folder, artist, length)

    monkeypatch.setattr(shapes, "_write", slow)
    assert len(ShapesDataset(root=tmp_path, length=4)) == 4
    assert len(list(tmp_path.iterdir())) == 1


def test_nothing_is_left_of_a_failure(tmp_path, monkeypatch):
    def fail(folder, artist, length):
        (folder / "images").mkdir()
        raise OSError("disk full")

    monkeypatch.setattr(shapes, "_write", fail)
    with pytest.raises(OSError, match="disk full"):
        ShapesDataset(root=tmp_path, length=4)
    assert list(tmp_path.iterdir()) == []


def test_no_object_or_always_one(tmp_path):
    assert ShapesDataset(root=tmp_path, length=10, empty=1.0).counts.empty_images == 10
    assert ShapesDataset(root=tmp_path, length=10, empty=0.0).counts.empty_images == 0
    assert len(ShapesDataset(root=tmp_path, length=40, filter_empty=True)) < 40


def test_classes(tmp_path):
    data = ShapesDataset(root=tmp_path, length=20, classes=("triangle",))
    assert set(data.records.annotations.labels.tolist()) == {0}
    assert data.counts.other_classes > 0


def test_no_folder():
    with pytest.raises(ConfigError, match="needs a folder to write its pictures to: give root"):
        ShapesDataset()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"object_size": (0.5, 0.2)}, "object_size should be 0 < smallest <= largest"),
        ({"length": 0}, "length"),
    ],
)
def test_wrong_parameters(tmp_path, parameters, message):
    with pytest.raises(ConfigError, match=message):
        ShapesDataset(root=tmp_path, **parameters)
