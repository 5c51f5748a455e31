from __future__ import annotations

import json

import pytest
import torch
from detcore_data import CocoDataset, CocoMetric, Collected, ShapesDataset
from detcore_eval.coco_results import read_results, write_results

from detcore.errors import DataError
from detcore.structures import ImageDetections


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = ShapesDataset(root=tmp_path_factory.mktemp("shapes"), length=5, size=(48, 64)).folder
    path = folder / "instances.json"
    content = json.loads(path.read_text())
    number = {row["id"]: 90 - row["id"] for row in content["categories"]}
    for row in content["categories"]:
        row["id"] = number[row["id"]]
    for row in content["annotations"]:
        row["category_id"] = number[row["category_id"]]
    path.write_text(json.dumps(content))
    return CocoDataset(annotations=path, images=folder / "images", with_masks=True)


def collected(data, masks):
    random = torch.Generator().manual_seed(0)
    result = Collected(data, masks=masks)
    for i in range(len(data) - 1):  # the last image has none
        item = data[i]
        boxes = item["boxes"].as_subclass(torch.Tensor)
        found = ImageDetections(
            boxes,
            torch.rand(len(boxes), generator=random),
            item["labels"],
            item["masks"].as_subclass(torch.Tensor),
        )
        result.add([item["image_id"]], [found])
    return result


@pytest.mark.parametrize("masks", [False, True])
def test_written_and_read(data, tmp_path, masks):
    before = collected(data, masks)
    write_results(before, tmp_path / "new" / "results.json")
    after = Collected(data, masks=masks)
    count = read_results(tmp_path / "new" / "results.json", data.records, after.add, masks=masks)
    assert count == sum(map(len, before.found.values()))
    assert after.unseen == 0
    for image_id, found in before.found.items():
        again = after.found[image_id]
        assert torch.equal(again.boxes, found.boxes)
        assert torch.equal(again.scores, found.scores)
        assert torch.equal(again.labels, found.labels)
        assert again.runs == found.runs
    metric = CocoMetric(iou_types=("bbox", "segm") if masks else ("bbox",))
    metric.start(data)
    read_results(tmp_path / "new" / "results.json", data.records, metric.update, masks=masks)
    assert metric.compute()["AR100"] > 0.5


def row(**changes):
    return {"image_id": 1, "category_id": 89, "bbox": [1, 2, 3, 4], "score": 0.5} | changes


@pytest.mark.reliability(
    area="evaluation",
    fault="files of detections that are damaged, of another dataset, or have numbers that are none",
    outcome="an error that names the file, the detection, the key and the value",
)
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"a": 1}, "should be a list of detections with image_id, category_id, bbox and score"),
        ([1], "should be a list of detections"),
        ([row(), row(image_id=77)], r"detection 1 has the image_id 77, which is none of the dataset's 5 image ids"),
        ([row(image_id="1")], "detection 0 has the image_id '1'"),
        ([row(category_id=1)], r"detection 0 has the category_id 1, .* 3 class ids \(89 circle"),
        ([row(category_id=None)], "detection 0 has the category_id None"),
        ([row(bbox=[1, 2, 3])], r"should have a bbox of four numbers x, y, w, h and a score, got \[1, 2, 3\]"),
        ([row(bbox="1 2 3 4")], "detection 0 should have a bbox"),
        ([row(bbox=None)], "detection 0 should have a bbox"),
        ([row(score=None)], r"got \[1, 2, 3, 4\] and None"),
        ([row(score=float("nan"))], "and nan"),
        ([row(bbox=[1, 2, float("inf"), 4])], "inf"),
    ],
)  # fmt: skip
def test_bad_files(data, tmp_path, rows, message):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=message) as caught:
        read_results(path, data.records, Collected(data).add)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "detection 0 has no segmentation, but masks are to be compared"),
        (
            {"size": [3, 4], "counts": [12]},
            r"detection 0: a mask of size \(h, w\) \(3, 4\) in an image of \(48, 64\)",
        ),
        ({"size": [48, 64], "counts": [5]}, "detection 0: a mask's run lengths are damaged"),
    ],
)
def test_bad_masks(data, tmp_path, segmentation, message):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([row(segmentation=segmentation)]))
    with pytest.raises(DataError, match=message):
        read_results(path, data.records, Collected(data, masks=True).add, masks=True)


def test_files_that_cannot_be_read(data, tmp_path):
    with pytest.raises(DataError, match=r"nothing\.json: no such file"):
        read_results(tmp_path / "nothing.json", data.records, Collected(data).add)
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe[")
    with pytest.raises(DataError, match="not a JSON file"):
        read_results(tmp_path / "bad.json", data.records, Collected(data).add)
