from __future__ import annotations

import numpy as np
import pytest
from detcore_data import VocDataset
from PIL import Image

from detcore.errors import DataError

OBJECT = (
    "<object><name>{0}</name>{5}<bndbox><xmin>{1}</xmin><ymin>{2}</ymin><xmax>{3}</xmax><ymax>{4}</ymax></bndbox>"
    "</object>"
)


def obj(name, *box, difficult=None):
    extra = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    return OBJECT.format(name, *box, extra)


class Voc:
    def __init__(self, folder):
        self.folder = folder
        for name in ("annotations", "images"):
            (folder / name).mkdir()

    def add(self, stem, *objects, size="<size><width>40</width><height>30</height></size>", ending=".png"):
        pixels = np.full((30, 40, 3), 7, np.uint8)
        Image.fromarray(pixels).save(self.folder / "images" / f"{stem}{ending}")
        text = f"<annotation><filename>stale.jpg</filename>{size}{''.join(objects)}</annotation>"
        (self.folder / "annotations" / f"{stem}.xml").write_text(text)

    def split(self, text):
        (self.folder / "split.txt").write_text(text)

    def __call__(self, **parameters):
        return VocDataset(root=self.folder, annotations="annotations", images="images", **parameters)


@pytest.fixture
def voc(tmp_path):
    voc = Voc(tmp_path)
    voc.add("b", obj("dog", 1, 2, 11, 12), obj("cat", 3, 3, 9, 8, difficult=1))
    voc.add("a")
    voc.add("c", obj("cat", 5, 6, 7, 8.5, difficult=0), ending=".jpg")
    return voc


def test_an_example(voc):
    data = voc()
    assert data.class_map.names == ("cat", "dog")
    assert [data[i]["file"][-5:] for i in range(3)] == ["a.png", "b.png", "c.jpg"]
    assert [data[i]["image_id"] for i in range(3)] == [0, 1, 2]
    assert len(data[0]["boxes"]) == 0
    assert data[1]["boxes"].tolist() == [[1, 2, 11, 12], [3, 3, 9, 8]]
    assert data[1]["labels"].tolist() == [1, 0]
    assert data[1]["ignore"].tolist() == [False, True]
    assert data[2]["boxes"].tolist() == [[5, 6, 7, 8.5]]


def test_difficult(voc):
    assert voc(difficult="keep")[1]["ignore"].tolist() == [False, False]
    assert voc(difficult="drop")[1]["labels"].tolist() == [1]


def test_counting_from_one(voc):
    assert voc(origin=1)[1]["boxes"][0].tolist() == [0, 1, 11, 12]


def test_split_gives_images_and_order_but_not_labels(voc):
    voc.split("c.jpg 1\n\na -1\n")
    data = voc(split="split.txt")
    assert [data[i]["file"][-5:] for i in range(len(data))] == ["c.jpg", "a.png"]
    assert data.class_map.names == ("cat", "dog")


def test_classes(voc):
    data = voc(classes=("dog",))
    assert data.counts.other_classes == 2
    assert [len(data[i]["labels"]) for i in range(3)] == [0, 1, 0]
    with pytest.raises(DataError, match=r"classes: .* has no class 'dgo'; did you mean 'dog'\?"):
        voc(classes=("cat", "dgo"))
    with pytest.raises(DataError, match="has no class 'cow'; its classes are 'cat', 'dog'"):
        voc(classes=("cow", "unicorn"))


def test_a_class_without_objects_keeps_its_label(voc, caplog):
    data = voc(classes=("zebra", "dog", "cat"))
    assert data[1]["labels"].tolist() == [1, 2]
    assert "no object has a class of ['zebra']" in caplog.text


def test_zero_size_boxes(voc, caplog):
    voc.add("d", obj("cat", 5, 5, 5, 9))
    assert voc().counts.degenerate == 1
    assert "1 boxes without extent" in caplog.text
    with pytest.raises(DataError, match=r"annotation 3 of image 'd\.png' .*has no extent"):
        voc(policy="error")


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>0</height></size>"])
def test_sizes_that_are_not_stated(voc, size):
    voc.add("d", obj("cat", 35, 5, 50, 9), size=size)
    assert voc()[3]["boxes"].tolist() == [[35, 5, 40, 9]]


@pytest.mark.reliability(
    area="data",
    fault="VOC boxes out of an image whose size is not stated",
    outcome="clipped, left out or refused as the policy says",
)
@pytest.mark.parametrize("policy", ["clip", "error"])
def test_boxes_outside_of_an_image_of_unstated_size(voc, caplog, policy):
    voc.add("d", obj("cat", 45, 5, 50, 9), obj("dog", 1, 1, 3, 3), size="")
    data = voc(policy=policy)
    if policy == "error":
        with pytest.raises(DataError, match=r"d\.png: 1 boxes without extent inside the image; correct"):
            data[3]
    else:
        assert data[3]["labels"].tolist() == [1]
        assert "d.png: 1 boxes without extent inside the image (left out)" in caplog.text


def test_wrong_size(voc):
    voc.add("d", size="<size><width>30</width><height>40</height></size>")
    with pytest.raises(DataError, match=r"d\.png: the image is 40 x 30 pixels .* says 30 x 40"):
        voc()[3]


@pytest.mark.reliability(
    area="data",
    fault="a VOC file that is no XML or of another layout",
    outcome="an error that names the file",
)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><object>", "not an XML file"),
        ("", "not an XML file"),
        ("<a><object><bndbox/></object></a>", "object 0 lacks <bndbox/xmin>"),
        (f"<a>{OBJECT.format(' ', 1, 2, 3, 4, '')}</a>", "object 0 lacks <name>"),
        (
            f"<a>{OBJECT.format('cat', 1, 'two', 3, 4, '')}</a>",
            "object 0: <bndbox/ymin> should be a number, got 'two'",
        ),
    ],
)
def test_broken_files(voc, text, message):
    (voc.folder / "annotations" / "b.xml").write_text(text)
    with pytest.raises(DataError, match=rf"b\.xml: {message}"):
        voc()


def test_missing_files(voc):
    voc.split("a\nnone\n")
    with pytest.raises(DataError, match=r"split\.txt lists 'none', but .*none\.xml does not exist"):
        voc(split="split.txt")
    voc.split("a\na.png\n")
    with pytest.raises(DataError, match="'a' is listed twice"):
        voc(split="split.txt")
    voc.split("\n")
    with pytest.raises(DataError, match="the list is empty"):
        voc(split="split.txt")
    voc.split("../../etc/passwd")
    with pytest.raises(DataError, match="leads out of the image folder"):
        voc(split="split.txt")
    (voc.folder / "split.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a text file"):
        voc(split="split.txt")
    with pytest.raises(DataError, match=r"split: the file .*other\.txt does not exist"):
        voc(split="other.txt")
    (voc.folder / "images" / "a.png").unlink()
    with pytest.raises(DataError, match=r"images has no image for a\.xml"):
        voc()


def test_no_file_at_all(tmp_path):
    with pytest.raises(DataError, match=r"there is no \.xml file"):
        Voc(tmp_path)()


def test_no_object_at_all(tmp_path):
    voc = Voc(tmp_path)
    voc.add("a")
    with pytest.raises(DataError, match="a class map needs at least one class"):
        voc()
