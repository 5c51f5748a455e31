"""Every kind of fault is generated, found, counted, and named; data without faults gives no finding."""

import json
import math

import numpy as np
import pytest
import torch
from detcore_data import CocoDataset, KittiDataset, RandomFlip, Resize, ShapesDataset, VocDataset
from detcore_data.inspection import Options, inspect_overlap, inspect_split, seen_objects
from detcore_data.inspection.formats import other_format
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

SIZE = (60, 100)  # h, w


def box_of(i):
    return [5 + 9 * (i % 8), 4 + 3 * i % 30, 14 + i % 9, 11 + i % 7]


@pytest.fixture
def coco(tmp_path):
    """Makes a COCO dataset of 6 images with 2 objects each, changed as the test asks."""

    def make(change=lambda content, folder: None, name="a", **options):
        folder = tmp_path / name
        folder.mkdir()
        random = np.random.RandomState(sum(map(ord, name)))
        images, annotations = [], []
        for i in range(6):
            pixels = random.randint(0, 255, (*SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
            images.append({"id": i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]})
            for k in range(2):
                number = 2 * i + k
                annotations.append(
                    {"id": 100 + number, "image_id": i, "category_id": 3 + 4 * k, "bbox": box_of(number)}
                )
        categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        change(content, folder)
        (folder / "a.json").write_text(json.dumps(content))
        return CocoDataset(annotations=folder / "a.json", images=folder, **options)

    return make


def inspected(dataset, **options):
    return inspect_split("train", dataset, Options(small=options.pop("small", 4), **options))


def found(dataset, **options):
    return {finding.check: finding for finding in inspected(dataset, **options).findings}


def test_data_without_faults_gives_no_finding(coco):
    split = inspected(coco())
    assert split.findings == ()
    assert [(c.name, c.dataset_id, c.label, c.objects, c.images) for c in split.classes] == [
        ("cat", 3, 0, 6, 6),
        ("dog", 7, 1, 6, 6),
    ]
    assert split.facts["objects"] == 12
    assert split.facts["commonest_sizes"] == [{"width": 100, "height": 60, "images": 6}]


def set_box(*boxes):
    def change(content, folder):
        for row, box in zip(content["annotations"], boxes, strict=False):
            row["bbox"] = box

    return change


def remove(content, folder):
    (folder / "2.png").unlink()


def damage(content, folder):
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:200])


def no_image(content, folder):
    (folder / "2.png").write_text("nothing")


def swap_sizes(content, folder):
    content["images"][2] |= {"height": SIZE[1], "width": SIZE[0]}


def repeat(content, folder):
    content["annotations"].append(content["annotations"][0] | {"id": 900})


def second_class(content, folder):
    content["annotations"].append(content["annotations"][0] | {"id": 900, "category_id": 7})


def list_twice(content, folder):
    content["images"].append(content["images"][0] | {"id": 50})


def copy_picture(content, folder):
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    content["images"].append(content["images"][0] | {"id": 50, "file_name": "copy.png"})


def dangle(content, folder):
    content["annotations"][0]["image_id"] = 77


def empty(content, folder):
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] != 2]


def new_class(content, folder):
    content["categories"].append({"id": 90, "name": "bird"})


FAULTS = {
    "missing": (remove, "missing-image", "error", "2.png: the image does not exist"),
    "damaged": (damage, "undecodable-image", "error", "2.png: the image cannot be decoded"),
    "no image": (no_image, "undecodable-image", "error", "2.png: not an image"),
    "sizes": (swap_sizes, "wrong-image-size", "error", "the annotation has them swapped"),
    "flat": (set_box([5, 5, 0, 9]), "degenerate-box", "warning", "0.png, annotation 100: x=5 y=5 w=0 h=9"),
    "negative": (set_box([50, 5, -20, 9]), "degenerate-box", "warning", "annotation 100"),
    "nan": (set_box([5, math.nan, 9, 9]), "degenerate-box", "warning", "annotation 100: x=5 y=nan"),
    "infinite": (set_box([5, 5, math.inf, 9]), "degenerate-box", "warning", "annotation 100"),
    "elsewhere": (set_box([200, 5, 9, 9]), "box-outside-image", "warning", "in 100 x 60 pixels"),
    "over": (set_box([80, 5, 40, 9]), "box-over-border", "warning", "annotation 100: x=80 y=5 w=40"),
    "repeated": (repeat, "duplicate-annotation", "warning", "annotation 900: like annotation 100 (cat)"),
    "classes": (second_class, "two-classes-one-box", "warning", "annotation 900: like annotation 100 (cat)"),
    "listed": (list_twice, "image-listed-twice", "warning", "0.png"),
    "copied": (copy_picture, "same-picture-twice", "warning", "copy.png: the same picture as 0.png"),
    "dangling": (dangle, "unlisted-image", "warning", None),
    "empty": (empty, "empty-image", "note", "2.png"),
    "class": (new_class, "class-without-objects", "warning", "'bird'"),
}


@pytest.mark.reliability(
    area="data",
    fault="each kind of fault that `detcore inspect data` looks for",
    outcome="found, counted and named",
)
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_and_named(coco, fault):
    change, check, severity, example = FAULTS[fault]
    findings = found(coco(change))
    assert findings[check].severity == severity
    assert findings[check].count == 1
    assert findings[check].remedy
    if example is not None:
        assert example in str(findings[check].examples[0])
    expected = {check}
    if fault in ("listed", "copied"):
        expected |= {"empty-image"}  # the annotations are all of the first one
    assert set(findings) == expected


@pytest.mark.parametrize("policy", ["clip", "drop"])
def test_what_a_policy_leaves_out_is_seen_all_the_same(coco, policy):
    dataset = coco(set_box([5, 5, 0, 9], [80, 5, 40, 9]), policy=policy)
    assert (dataset.counts.degenerate, dataset.counts.outside) == (1, 1)
    findings = found(dataset)
    assert {"degenerate-box", "box-over-border"} <= set(findings)
    done = {"clip": "cuts them off", "drop": "leaves them out"}[policy]
    assert done in findings["box-over-border"].remedy


def test_bad_boxes_are_errors_where_training_will_stop_at_them(coco):
    split = inspect_split("train", coco(set_box([5, 5, 0, 9])), policy="error")
    assert [f.severity for f in split.findings if f.check == "degenerate-box"] == ["error"]


def test_regions_to_ignore_are_counted_and_are_no_objects(coco):
    def crowd(content, folder):
        content["annotations"][0]["iscrowd"] = 1

    split = inspected(coco(crowd))
    assert (split.facts["ignored"], split.facts["objects"], split.classes[0].ignored) == (1, 11, 1)


def test_other_classes_are_counted(coco):
    findings = found(coco(classes=("dog",)))
    assert findings["other-classes"].count == 6


# ------------------------------------------------------------------------------------------------- formats


def converted(change):
    def apply(content, folder):
        for row in content["annotations"]:
            row["bbox"] = change(*row["bbox"])

    return apply


@pytest.mark.parametrize(
    ("change", "meant"),
    [
        (lambda x, y, w, h: [x / 100, y / 60, w / 100, h / 60], "fractions"),
        (lambda x, y, w, h: [x, y, x + w, y + h], "x1, y1, x2, y2"),
        (lambda x, y, w, h: [y, x, h, w], "swapped"),
        (lambda x, y, w, h: [100 - x - w / 2, 60 - y - h / 2, w, h], "centre"),
    ],
)
def test_other_formats_are_recognised(coco, change, meant):
    finding = found(coco(converted(change)))["box-format"]
    assert finding.severity == "error"
    assert meant in finding.what


@pytest.mark.reliability(
    area="data",
    fault="boxes in another format than the file's: corners for extents, swapped axes, fractions",
    outcome="recognised, and the right format named",
)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(40, 200), kind=st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_formats_of_any_boxes(seed, count, kind):
    random = np.random.RandomState(seed)
    limits = np.tile([640.0, 480.0], (count, 1))
    low = random.uniform(0, 0.8, (count, 2)) * limits
    extent = 4 + random.uniform(0, 1, (count, 2)) * (limits - low - 4)
    high = low + extent
    written = (
        np.hstack((low, extent)),  # right
        np.hstack((low, high)),  # corners in a field for extents
        np.hstack((low, extent - low)),  # extents in a field for corners
        np.hstack((low[:, ::-1], extent[:, ::-1])),  # swapped
        np.hstack((low / limits, extent / limits)),  # fractions
    )[kind]
    meant = other_format(torch.from_numpy(written), torch.from_numpy(limits))
    expected = ("", "x1, y1, x2, y2 where", "x, y, w, h where", "swapped", "fractions")[kind]
    assert (meant == "") if kind == 0 else (expected in meant)


@pytest.mark.reliability(
    area="data",
    fault="a few bad boxes among good ones",
    outcome="not mistaken for another format",
)
@given(bad=st.integers(0, 9), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_a_few_bad_boxes_are_no_other_format(bad, seed):
    random = np.random.RandomState(seed)
    boxes = np.hstack((random.uniform(0, 50, (100, 2)), random.uniform(1, 9, (100, 2))))
    boxes[:bad, 2] += 300
    assert other_format(torch.from_numpy(boxes), torch.full((100, 2), 60.0).double()) == ""


# ------------------------------------------------------------------------------------- as the network sees


def test_objects_that_become_small(coco):
    dataset = coco(transforms=(Resize(scale=(50, 30)),))  # half as large
    findings = found(dataset, small=7)
    expected = sum(min(box_of(i)[2:]) / 2 < 7 for i in range(12))
    assert findings["small-object"].count == expected > 0
    assert "in an image of 50 x 30" in str(findings["small-object"].examples[0])


def test_rows_survive_random_transforms(coco):
    dataset = coco(transforms=(RandomFlip(prob=0.5), Resize(scale=(200, 120))))
    records = dataset.records
    before = torch.get_rng_state()
    flips = set()
    for seen in seen_objects(records, records.sizes, dataset.transforms, range(6)):
        x, _, w, _ = records.annotations.boxes[seen.rows].T
        flips.add(seen.geometry.flip[0])
        left = (100 - x - w) if seen.geometry.flip[0] else x
        assert torch.equal(seen.boxes[:, 0], (2 * left).float())
    assert flips == {True, False}
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------------------------------------------- overlap


def test_overlap_by_path_and_by_content(coco):
    train = coco(name="a")
    assert [f.count for f in inspect_overlap(inspected(train), inspected(train))] == [6]

    def copy(content, folder):
        (folder / "3.png").write_bytes((folder.parent / "a" / "1.png").read_bytes())

    (finding,) = inspect_overlap(inspected(train), inspect_split("val", coco(copy, name="b")))
    assert (finding.count, finding.severity) == (1, "warning")
    assert str(finding.examples[0]) == "3.png: the same picture as 1.png"
    assert inspect_overlap(inspected(train), inspect_split("val", coco(name="c"))) == []


# ------------------------------------------------------------------------------------- limits and datasets


def test_a_limit_opens_so_many_images_and_examples_are_bounded(coco):
    opened = []

    def all_small(content, folder):
        for row in content["annotations"]:
            row["bbox"][2] = 0

    dataset = coco(all_small)
    split = inspect_split("train", dataset, Options(limit=2, examples=3), advance=opened.append)
    assert (split.digests.any(1).sum(), sum(opened)) == (2, 4)
    (finding,) = (f for f in split.findings if f.check == "degenerate-box")
    assert (finding.count, len(finding.examples)) == (12, 3)


def test_no_image_is_opened_with_limit_0(coco):
    assert not inspected(coco(), limit=0).digests.any()


def test_findings_become_json(coco):
    for finding in inspected(coco(set_box([5, math.inf, 9, 9]))).findings:
        json.dumps(finding.to_dict(), allow_nan=False)


def voc(folder, box, size=True):
    Image.new("RGB", SIZE[::-1], "red").save(folder / "a.png")
    size = f"<size><width>{SIZE[1]}</width><height>{SIZE[0]}</height></size>" if size else ""
    names = ("xmin", "ymin", "xmax", "ymax")
    corners = "".join(f"<{name}>{value}</{name}>" for name, value in zip(names, box, strict=True))
    item = f"<object><name>cat</name><bndbox>{corners}</bndbox></object>"
    (folder / "a.xml").write_text(f"<annotation>{size}{item}</annotation>")
    return VocDataset(annotations=folder, images=folder)


@pytest.mark.parametrize("size", [True, False])
def test_voc(tmp_path, size):
    findings = found(voc(tmp_path, (80, 10, 130, 30), size))
    assert findings["box-over-border"].count == 1
    assert "w=50 h=20 in 100 x 60" in str(findings["box-over-border"].examples[0])


def kitti(folder, boxes):
    Image.new("RGB", SIZE[::-1], "red").save(folder / "a.png")
    rows = (f"{name} 0 0 0 {x1} {y1} {x2} {y2} 0 0 0 0 0 0 0\n" for name, x1, y1, x2, y2 in boxes)
    (folder / "a.txt").write_text("".join(rows))
    return KittiDataset(annotations=folder, images=folder)


def test_kitti_is_judged_by_the_decoded_sizes(tmp_path):
    dataset = kitti(tmp_path, [("Car", 80, 10, 130, 30), ("Car", 300, 10, 330, 30), ("DontCare", 1, 1, 9, 9)])
    split = inspected(dataset)
    findings = {finding.check: finding for finding in split.findings}
    assert findings["box-over-border"].count == findings["box-outside-image"].count == 1
    assert split.facts["ignored_for_every_class"] == 1
    assert findings["class-without-objects"].count == 7


def test_xywh_in_a_format_of_corners(tmp_path):
    boxes = [("Car", 40 + i, 30 + i, 12, 9) for i in range(6)]
    finding = found(kitti(tmp_path, boxes))["box-format"]
    assert "x, y, w, h where x1, y1, x2, y2 are expected" in finding.what


def test_generated_shapes_have_no_faults(tmp_path):
    split = inspected(ShapesDataset(root=tmp_path, length=30, empty=0))
    assert split.findings == ()
