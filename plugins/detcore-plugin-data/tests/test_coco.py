from __future__ import annotations

import pickle
import time

import numpy as np
import pytest
import torch
from detcore_data import CocoDataset, RandomFlip, Resize
from detcore_data.segmentations import quietly
from PIL import Image
from pycocotools import mask as coco_mask
from torchvision import tv_tensors

from detcore import build, dump
from detcore.errors import ConfigError, DataError


def test_an_example(coco):
    data = CocoDataset(**coco.write())
    item = data[1]
    assert [data[i]["image_id"] for i in range(len(data))] == [5, 3, 8]
    assert item["file"] == str(coco.images / "3.png")
    assert type(item["image"]) is tv_tensors.Image
    assert (item["image"].dtype, item["image"].shape) == (torch.uint8, (3, 30, 40))
    assert item["boxes"].dtype == torch.float32
    assert item["boxes"].tolist() == [[10, 5, 30, 15], [1.5, 2.25, 4.5, 6.25]]
    assert (item["labels"].dtype, item["labels"].tolist()) == (torch.int64, [1, 2])
    assert (item["ignore"].dtype, item["ignore"].tolist()) == (torch.bool, [False, True])
    assert item["geometry"].original_size == (30, 40)
    assert "masks" not in item


def test_an_image_without_objects_is_kept(coco):
    item = CocoDataset(**coco.write())[2]
    assert item["boxes"].shape == (0, 4)
    assert item["labels"].shape == (0,)


def test_filter_empty(coco):
    coco.data["annotations"][1]["iscrowd"] = 1  # the only one in image 5
    data = CocoDataset(**coco.write(), filter_empty=True)
    assert data.records.image_ids.tolist() == [3]
    assert data.counts.empty_images == 2
    assert data[0]["labels"].tolist() == [1, 2]


def test_no_annotation_at_all(coco):
    coco.data["annotations"] = []
    data = CocoDataset(**coco.write())
    assert [len(data[i]["boxes"]) for i in range(3)] == [0, 0, 0]
    with pytest.raises(DataError, match=r"instances\.json: there is no image, after filter_empty left out 3"):
        CocoDataset(**coco.write(), filter_empty=True)


@pytest.mark.parametrize("ids", [(0, 1, 2), (1, 2, 3), (3, 7, 90), (90, 3, 7)])
def test_labels_by_name_whatever_the_ids(coco, ids):
    number = dict(zip((3, 7, 90), ids, strict=True))
    for row in coco.data["categories"]:
        row["id"] = number[row["id"]]
    for row in coco.data["annotations"]:
        row["category_id"] = number[row["category_id"]]
    data = CocoDataset(**coco.write())
    assert (data.class_map.names, data.class_map.ids) == (("cat", "dog", "owl"), ids)
    assert [data.class_map.names[i] for i in data[1]["labels"]] == ["dog", "owl"]


def test_subset_and_order_of_classes(coco):
    data = CocoDataset(**coco.write(), classes=("owl", "cat"))
    assert (data.class_map.names, data.class_map.ids) == (("owl", "cat"), (90, 3))
    assert data[0]["labels"].tolist() == [1]
    assert data[1]["labels"].tolist() == [0]
    assert data.counts.other_classes == 1
    assert len(data) == 3


def test_unknown_class(coco):
    with pytest.raises(
        DataError, match=r"no class 'cta'; did you mean 'cat'\? its classes are 'cat', 'dog', 'owl'"
    ):
        CocoDataset(**coco.write(), classes=("cta", "dog"))
    with pytest.raises(DataError, match="class name 'cat' occurs twice"):
        CocoDataset(**coco.write(), classes=("cat", "cat"))


def test_root(coco):
    coco.write()
    data = CocoDataset(root=coco.folder, annotations="instances.json", images="images")
    assert len(data) == 3


def test_transforms_in_order(coco):
    transforms = (Resize(scale=(80, 60)), RandomFlip.spec(prob=1.0))
    item = CocoDataset(**coco.write(), transforms=transforms)[1]
    assert item["boxes"][0].tolist() == [20, 10, 60, 30]
    assert item["geometry"].scale == (2, 2)
    assert item["geometry"].flip == (True, False)


def test_it_can_be_dumped_built_and_pickled(coco):
    data = CocoDataset(**coco.write(), classes=("owl", "cat"), transforms=(RandomFlip.spec(prob=1.0),))
    config = dump(data)
    assert config["transforms"][0]["prob"] == 1.0
    for again in (build(config), pickle.loads(pickle.dumps(data))):
        assert torch.equal(again[1]["boxes"], data[1]["boxes"])
        assert torch.equal(again[1]["image"], data[1]["image"])


def test_a_mistyped_parameter(coco):
    with pytest.raises(ConfigError, match="did you mean 'filter_empty'"):
        CocoDataset(**coco.write(), filter_emtpy=True)


def test_negative_and_too_large_indices(coco):
    data = CocoDataset(**coco.write())
    assert data[-1]["image_id"] == 8
    with pytest.raises(IndexError):
        data[3]


def test_examples_are_fresh(coco):
    data = CocoDataset(**coco.write())
    for _ in range(2):
        item = data[1]
        assert item["boxes"][0, 0] == 10
        assert item["labels"][0] == 1
        item["boxes"].zero_()
        item["labels"].zero_()
        item["ignore"].fill_(True)
    assert data[1]["ignore"].tolist() == [False, True]


# ------------------------------------------------------------------------------------------------- bad files


def test_missing_files(coco):
    paths = coco.write()
    with pytest.raises(DataError, match=r"annotations: the file .*none\.json does not exist"):
        CocoDataset(annotations=coco.folder / "none.json", images=paths["images"])
    with pytest.raises(DataError, match=r"images: the folder .*nowhere does not exist"):
        CocoDataset(annotations=paths["annotations"], images=coco.folder / "nowhere")
    (coco.folder / "other").mkdir()
    with pytest.raises(
        DataError, match=r"images: none of the first 3 images .* e\.g\. 5\.png; is it the right folder"
    ):
        CocoDataset(annotations=paths["annotations"], images=coco.folder / "other")


@pytest.mark.reliability(
    area="data",
    fault="a missing image",
    outcome="an error that names the file",
)
def test_a_missing_image_is_named_when_it_is_read(coco):
    data = CocoDataset(**coco.write())
    (coco.images / "3.png").unlink()
    assert len(CocoDataset(**coco.write())) == 3
    with pytest.raises(DataError, match=r"3\.png: the image does not exist"):
        data[1]


@pytest.mark.reliability(
    area="data",
    fault="a COCO file that is no JSON or of another layout",
    outcome="an error that names the file and the place",
)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not a JSON file"),
        (b'{"images": [', "not a JSON file .* only partly downloaded"),
        (b"\xff\xfe\x00garbage", "not a JSON file"),
        (b"[" * 100_000, "not a JSON file"),
        (b"[1, 2]", r"is an object with the keys .* this one is a list \(a file of results\?\)"),
        (b"3", "this one is a int"),
        (
            b'{"images": [], "annotations": []}',
            r"the key 'categories' is missing; .* \['annotations', 'images'\]",
        ),
        (b'{"images": [], "annotations": [], "categories": []}', "a class map needs at least one class"),
        (b'{"images": {}, "annotations": [], "categories": []}', "'images' should be a list of objects"),
        (b'{"images": [3], "annotations": [], "categories": []}', "'images' should be a list of objects"),
    ],
)
def test_broken_files(coco, text, message):
    with pytest.raises(DataError, match=rf"instances\.json: .*{message}"):
        CocoDataset(**coco.write(text))


@pytest.mark.reliability(
    area="data",
    fault="a wrong value in a COCO file",
    outcome="an error that names the file and the entry",
)
@pytest.mark.parametrize(
    ("table", "key", "value", "message"),
    [
        ("images", "id", "5", r"images\[0\]\.id should be an integer, got '5'"),
        ("images", "id", True, r"images\[0\]\.id should be an integer, got True"),
        ("images", "id", 3, "two images have the id 3"),
        ("images", "id", 2**70, r"images\[0\]\.id should be an integer"),
        ("images", "file_name", 5, r"images\[0\]\.file_name should be a string, got 5"),
        ("images", "file_name", "../../etc/passwd", "'../../etc/passwd' leads out of the image folder"),
        ("images", "width", "wide", r"images\[0\]\.width should be an integer, got 'wide'"),
        ("annotations", "image_id", None, r"annotations\[0\]\.image_id should be an integer, got None"),
        ("annotations", "category_id", 4, r"annotations\[0\] \(id 1\) has category_id 4, .* \[3, 7, 90\]"),
        (
            "annotations",
            "bbox",
            [1, 2, 3],
            r"annotations\[0\]\.bbox should be a list \[x, y, w, h\], got \[1, 2, 3\]",
        ),
        ("annotations", "bbox", [1, 2, 3, "4"], r"annotations\[0\]\.bbox should be a list of four numbers"),
        ("annotations", "bbox", None, r"annotations\[0\]\.bbox should be a list"),
        ("annotations", "area", "big", r"annotations\[0\]\.area should be a number, got 'big'"),
        ("annotations", "iscrowd", 2, r"annotations\[0\]\.iscrowd should be 0 or 1, got 2"),
        ("categories", "name", None, r"categories\[0\]\.name should be a string, got None"),
        ("categories", "name", "dog", "class name 'dog' occurs twice"),
        ("categories", "id", 7, "two categories have the id 7"),
    ],
)
def test_wrong_values(coco, table, key, value, message):
    coco.data[table][0][key] = value
    with pytest.raises(DataError, match=rf"instances\.json: .*{message}"):
        CocoDataset(**coco.write())


@pytest.mark.reliability(
    area="data",
    fault="a key missing from a COCO file",
    outcome="an error that names it",
)
@pytest.mark.parametrize(
    ("table", "key"),
    [("images", "id"), ("images", "file_name"), ("annotations", "image_id"), ("annotations", "bbox"),
     ("annotations", "category_id"), ("categories", "id"), ("categories", "name")],
)  # fmt: skip
def test_missing_keys(coco, table, key):
    del coco.data[table][1][key]
    with pytest.raises(DataError, match=rf"{table}\[1\] lacks the key '{key}'; it has \["):
        CocoDataset(**coco.write())


@pytest.mark.parametrize("key", ["area", "iscrowd", "id"])
def test_optional_keys_of_annotations(coco, key):
    for row in coco.data["annotations"]:
        row.pop(key, None)
    data = CocoDataset(**coco.write())
    assert data.records.annotations.areas.tolist() == [16, 200, 12]


def test_optional_sizes(coco):
    for row in coco.data["images"]:
        del row["width"], row["height"]
    coco.data["annotations"][0]["bbox"] = [30, 5, 20, 10]
    item = CocoDataset(**coco.write())[1]
    assert item["boxes"][0].tolist() == [30, 5, 40, 15]


@pytest.mark.reliability(
    area="data",
    fault="annotations of images that a COCO file does not have",
    outcome="counted in the log",
)
def test_dangling_annotations(coco, caplog):
    coco.data["annotations"][1]["image_id"] = 99
    data = CocoDataset(**coco.write())
    assert data.counts.dangling == 1
    assert len(data[0]["boxes"]) == 0
    assert "1 annotations of images that are not listed (left out)" in caplog.text
    with pytest.raises(DataError, match="1 annotations of images that are not listed"):
        CocoDataset(**coco.write(), policy="error")


# ------------------------------------------------------------------------------------------------- bad boxes

BAD = {
    "zero width": ([5, 5, 0, 4], "degenerate"),
    "negative height": ([5, 5, 4, -2], "degenerate"),
    "beyond the image": ([50, 5, 4, 4], "degenerate"),
    "not a number": ([float("nan"), 5, 4, 4], "degenerate"),
    "infinite": ([1, 5, float("inf"), 4], "degenerate"),
    "over the border": ([35, 5, 10, 4], "outside"),
    "before the corner": ([-5, 5, 10, 4], "outside"),
}


@pytest.mark.reliability(
    area="data",
    fault="the same with the policies clip and drop",
    outcome="clipped or left out, and counted in the log",
)
@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("policy", ["clip", "drop"])
def test_bad_boxes_are_counted_and_logged(coco, caplog, name, policy):
    box, kind = BAD[name]
    coco.data["annotations"][1]["bbox"] = box
    data = CocoDataset(**coco.write(), policy=policy)
    assert getattr(data.counts, kind) == 1
    assert data.counts.degenerate + data.counts.outside == 1
    assert sum(record.levelname == "WARNING" for record in caplog.records) == 1
    boxes = data[0]["boxes"]
    assert len(boxes) == (1 if kind == "outside" and policy == "clip" else 0)
    assert len(data.records.annotations) == 2 + len(boxes)
    assert all(0 <= v <= 40 for v in boxes.flatten().tolist())


@pytest.mark.reliability(
    area="data",
    fault="boxes without extent, out of the image or not finite, policy error",
    outcome="an error that names file and annotation",
)
@pytest.mark.parametrize("name", BAD)
def test_bad_boxes_raise(coco, name):
    coco.data["annotations"][1]["bbox"] = BAD[name][0]
    message = r"instances\.json: annotation 2 of image '5\.png' of 40 x 30 pixels (has no extent|reaches out)"
    with pytest.raises(DataError, match=message):
        CocoDataset(**coco.write(), policy="error")


@pytest.mark.parametrize("policy", ["error", "clip", "drop"])
def test_up_to_a_pixel_over_the_border_is_rounding(coco, caplog, policy):
    coco.data["annotations"][1]["bbox"] = [-1, 5, 42, 4]
    data = CocoDataset(**coco.write(), policy=policy)
    assert data[0]["boxes"].tolist() == [[0, 5, 40, 9]]
    assert data.counts.outside == 0
    assert not caplog.records


def test_evaluation_sees_boxes_as_they_are_written(coco):
    coco.data["annotations"][1]["bbox"] = [35, 5, 10.3, 4]
    data = CocoDataset(**coco.write())
    assert data.records.annotations.boxes[0].tolist() == [35, 5, 10.3, 4]
    assert data[0]["boxes"].tolist() == [[35, 5, 40, 9]]


def test_other_box_formats_are_suspected(coco, caplog):
    for row in coco.data["annotations"]:
        row["bbox"] = [20, 15, 38, 28]
    CocoDataset(**coco.write())
    assert "are they x1, y1, x2, y2?" in caplog.text
    caplog.clear()
    for row in coco.data["annotations"]:
        row["bbox"] = [0.1, 0.1, 0.5, 0.4]
    CocoDataset(**coco.write())
    assert "are they fractions of the image size?" in caplog.text


# ----------------------------------------------------------------------------------------------------- masks


def test_polygons_and_run_lengths(coco):
    square = [10, 5, 30, 5, 30, 15, 10, 15]
    coco.data["annotations"][0]["segmentation"] = [square, [0, 0, 2, 0, 2, 2, 0, 2]]
    coco.data["annotations"][1]["segmentation"] = [[0, 0, 4, 0, 4, 4, 0, 4]]
    column_runs = [2 * 30 + 3, 4, 1200 - 67]  # column-major, beginning with zeros
    coco.data["annotations"][2]["segmentation"] = {"size": [30, 40], "counts": column_runs}
    data = CocoDataset(**coco.write(), with_masks=True)
    masks = data[1]["masks"]
    assert type(masks) is tv_tensors.Mask
    assert masks.shape == (2, 30, 40)
    assert masks[0].sum() == 204
    assert masks[0, 5:15, 10:30].all()
    assert masks[1].nonzero().tolist() == [[3, 2], [4, 2], [5, 2], [6, 2]]
    assert data[2]["masks"].shape == (0, 30, 40)
    assert data[0]["masks"].sum() == 16


def test_compressed_run_lengths_are_read_as_pycocotools_writes_them(coco):
    dense = torch.from_numpy(np.random.RandomState(0).rand(30, 40) < 0.5)
    dense[3:9] = True
    run = quietly(coco_mask.encode, np.asfortranarray(dense.numpy().astype(np.uint8)))
    for row in coco.data["annotations"]:
        row["segmentation"] = {"size": run["size"], "counts": run["counts"].decode()}
    data = CocoDataset(**coco.write(), with_masks=True)
    assert torch.equal(data[0]["masks"][0], dense)
    assert data.records.segmentations.encode(0, (30, 40)) == run


def test_masks_follow_their_annotations(coco):
    coco.data["annotations"][2]["bbox"] = [1, 2, 3, 4]
    for row in coco.data["annotations"]:
        x, y, w, h = row["bbox"]
        row["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    coco.data["annotations"][0]["bbox"] = [0, 0, 0, 0]
    data = CocoDataset(**coco.write(), with_masks=True, classes=("owl", "dog"))
    assert data[1]["labels"].tolist() == [0]
    x1, y1, x2, y2 = data[1]["boxes"][0].round().int().tolist()
    assert data[1]["masks"][0, y1:y2, x1:x2].sum() == data[1]["masks"].sum()


@pytest.mark.parametrize(
    "value",
    [None, [], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5]], {"size": [30, 40]}, {"size": [30, 40], "counts": 5}, "x"],
)
def test_no_usable_mask(coco, value):
    for row in coco.data["annotations"]:
        row["segmentation"] = [[0, 0, 4, 0, 4, 4]]
    coco.data["annotations"][1]["segmentation"] = value
    with pytest.raises(DataError, match="annotation 2 of image 5 has no usable 'segmentation'"):
        CocoDataset(**coco.write(), with_masks=True)
    CocoDataset(**coco.write())


@pytest.mark.parametrize("value", ["x", 1e12, float("nan"), None])
def test_bad_coordinates(coco, value):
    for row in coco.data["annotations"]:
        row["segmentation"] = [[0, 0, 4, 0, 4, value]]
    with pytest.raises(DataError, match=r"instances\.json: a polygon has a coordinate"):
        CocoDataset(**coco.write(), with_masks=True)


@pytest.mark.reliability(
    area="data",
    fault="damaged run lengths of masks",
    outcome="an error that names the annotation",
)
@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            {"size": [30, 41], "counts": [1230]},
            r"a mask of size \(h, w\) \(30, 41\) in an image of \(30, 40\)",
        ),
        ({"size": [30, 40], "counts": [1200, 5000]}, "run lengths are damaged"),
        ({"size": [30, 40], "counts": ["x"]}, "run lengths are damaged"),
        ({"size": [30, 40], "counts": [-5, 3]}, "run lengths are damaged"),
        ({"size": [30, 40], "counts": [5.5, 3]}, "run lengths are damaged"),
        ({"size": [30, 40], "counts": [10, 5]}, "run lengths are damaged .they cover 15 of 1200 pixels"),
        ({"size": [30, 40], "counts": ""}, "run lengths are damaged"),
        ({"size": [30, 40], "counts": "0o"}, "run lengths are damaged"),
        ({"size": [30, 40], "counts": "ü"}, "run lengths are damaged"),
        ({"size": [30, 40], "counts": "PPPPPPPPPPPPPPPPPPPPP1"}, "run lengths are damaged"),
    ],
)
def test_damaged_run_lengths(coco, run, message):
    for row in coco.data["annotations"]:
        row["segmentation"] = run
    data = CocoDataset(**coco.write(), with_masks=True)
    with pytest.raises(DataError, match=rf"5\.png: .*{message}"):
        data[0]


# ----------------------------------------------------------------------------------------------------- speed


@pytest.mark.slow
def test_coco_scale(tmp_path):
    random = np.random.RandomState(0)
    images = ", ".join(
        f'{{"id": {i}, "file_name": "{i:012d}.jpg", "height": 480, "width": 640}}' for i in range(118_000)
    )
    boxes = random.uniform(1, 300, (860_000, 4)).round(2).tolist()
    owner = random.randint(0, 118_000, 860_000).tolist()
    rows = ", ".join(
        f'{{"id": {i}, "image_id": {o}, "category_id": {i % 80}, "bbox": {b}, "area": 5.5, "iscrowd": 0}}'
        for i, (o, b) in enumerate(zip(owner, boxes, strict=True))
    )
    categories = ", ".join(f'{{"id": {i}, "name": "c{i}"}}' for i in range(80))
    path = tmp_path / "a.json"
    path.write_text(f'{{"images": [{images}], "annotations": [{rows}], "categories": [{categories}]}}')
    (tmp_path / "000000000000.jpg").write_bytes(b"")
    Image.new("RGB", (640, 480)).save(tmp_path / "000000000000.jpg")
    begin = time.perf_counter()
    data = CocoDataset(annotations=path, images=tmp_path)
    seconds = time.perf_counter() - begin
    assert (len(data), len(data.records.annotations)) == (118_000, 860_000)
    assert len(data[0]["boxes"]) == owner.count(0)
    assert seconds < 300  # about 4 s; looking through all annotations for each image would take hours
