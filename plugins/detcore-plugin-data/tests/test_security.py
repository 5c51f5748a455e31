"""Annotation files and images that someone made to harm: refused in words, in bounded time and memory."""

import io
import json
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from detcore_data import CocoDataset, CocoMetric, KittiDataset, VocDataset
from detcore_data.images import ImageReader, check_inside
from detcore_data.segmentations import Segmentations
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from detcore.errors import DataError
from detcore.structures import ImageDetections

# ----------------------------------------------------------------------------------------------------- names

EVIL_NAMES = (
    "../secret.png", "a/../../secret.png", "/etc/passwd", "//host/share/a.png", "\\\\host\\share\\a.png",
    "..\\secret.png", "a\\..\\..\\secret.png", "C:\\secret.png", "C:secret.png", "c:/secret.png", "", ".", "..",
    "./..", "a\0.png", "\0", "../\0", "./../images/../../secret.png", "\ud800.png", "x" * 5000, "é" * 3000,
    "sub/../../../secret.png", "/", "\\", "a/" * 3000 + "b.png",
)  # fmt: skip

names = st.one_of(
    st.sampled_from(EVIL_NAMES),
    st.text(max_size=30),
    st.lists(st.sampled_from(["..", ".", "/", "\\", "a", "images", "C:", "\0", "link", "~"]), max_size=8).map(
        "".join
    ),
    st.lists(st.sampled_from(["..", ".", "a", "sub", "out"]), min_size=1, max_size=6).map("/".join),
)


@pytest.fixture
def house(tmp_path):
    """A data root with one image, a secret beside it, and links."""
    root = tmp_path / "root"
    (root / "images" / "sub").mkdir(parents=True)
    (root / "labels").mkdir()
    Image.new("RGB", (8, 6), (1, 2, 3)).save(root / "images" / "a.png")
    Image.new("RGB", (8, 6), (9, 9, 9)).save(tmp_path / "secret.png")
    return root


def write_coco(root, file_name, **image):
    data = {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 8, "height": 6},
            {"id": 2, "file_name": file_name, "width": 8, "height": 6, **image},
        ],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 3]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    path = root / "instances.json"
    path.write_text(json.dumps(data))
    return path


@pytest.mark.reliability(
    area="security",
    fault="image paths in COCO files that lead out of the folder: .., absolute, drives, backslashes, NUL, endless ones",
    outcome="refused with the path, or an image below the folder that does not exist; nothing outside is opened",
)
def test_coco_names_stay_inside(house, record_property, monkeypatch):
    opened, tried = [], 0
    real = Image.open
    monkeypatch.setattr(
        Image, "open", lambda path, **options: opened.append(Path(path)) or real(path, **options)
    )

    @settings(max_examples=150, deadline=None)
    @given(names)
    def check(name):
        nonlocal tried
        tried += 1
        with suppress(DataError):
            CocoDataset(annotations=write_coco(house, name), images=house / "images")[1]

    for name in EVIL_NAMES:
        check = example(name)(check)
    check()
    inside = (house / "images").resolve()
    assert all(path.resolve().is_relative_to(inside) for path in opened)
    record_property("tried", tried)


@pytest.mark.parametrize("name", EVIL_NAMES)
def test_evil_names_are_refused_when_the_file_is_read(house, name):
    with pytest.raises(DataError, match=r"instances\.json: the image path"):
        CocoDataset(annotations=write_coco(house, name), images=house / "images")


def write_kitti(root, split):
    (root / "labels" / "a.txt").write_text("Car 0 0 0 1 1 5 5 0 0 0 0 0 0 0\n")
    (root / "split.txt").write_bytes(f"a\n{split}\n".encode("utf-8", "surrogatepass"))


@pytest.mark.reliability(
    area="security",
    fault="names in KITTI and VOC split lists, and in a VOC file's <filename>, that lead out of the folder",
    outcome="refused with the list's path; a VOC file's <filename> is not followed at all",
)
def test_split_lists_stay_inside(house, record_property):
    tried = 0

    @settings(max_examples=100, deadline=None)
    @given(names)
    def check(name):
        nonlocal tried
        tried += 1
        write_kitti(house, name)
        with suppress(DataError):
            data = KittiDataset(
                annotations=house / "labels", images=house / "images", split=house / "split.txt"
            )
            assert [Path(data[i]["file"]) for i in range(len(data))] == [house / "images" / "a.png"]

    check()
    (house / "xml").mkdir()
    for name in ("../secret.png", "/etc/passwd", "secret"):
        tried += 1
        text = f"<annotation><filename>{name}</filename><folder>..</folder><path>/etc/passwd</path>{BOX}</annotation>"
        (house / "xml" / "a.xml").write_text(text)
        data = VocDataset(annotations=house / "xml", images=house / "images")
        assert data[0]["file"] == str(house / "images" / "a.png")
        (house / "split.txt").write_text(f"{name}\n")
        with pytest.raises(DataError, match=r"split\.txt"):
            VocDataset(annotations=house / "xml", images=house / "images", split=house / "split.txt")
    record_property("tried", tried)


def test_links_are_followed(house, tmp_path):
    """An annotation file cannot make links: who put them into the folder decides where they lead."""
    (house / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "elsewhere").symlink_to(house)
    images = tmp_path / "elsewhere" / "images"
    data = CocoDataset(annotations=write_coco(house, "link.png"), images=images)
    assert int(data[1]["image"].max()) == 9
    with pytest.raises(DataError, match="leads out of the image folder"):
        CocoDataset(annotations=write_coco(house, "link/../../secret.png"), images=images)


# ------------------------------------------------------------------------------------------------------- XML

BOX = "<object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>5</ymax></bndbox></object>"
LAUGHS = "<!DOCTYPE lolz [<!ENTITY lol0 'lol'>" + "".join(
    f"<!ENTITY lol{i} '{f'&lol{i - 1};' * 10}'>" for i in range(1, 12)
)
EVIL_XML = {
    "billion laughs": LAUGHS + "]><annotation><object><name>&lol11;</name></object></annotation>",
    "quadratic": f"<!DOCTYPE a [<!ENTITY x '{'y' * 50_000}'>]><annotation>{'&x;' * 50_000}</annotation>",
    "external entity": "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><annotation><object><name>&x;</name>"
    "</object></annotation>",
    "external document type": "<!DOCTYPE a SYSTEM 'http://127.0.0.1:1/a.dtd'><annotation/>",
    "parameter entity": "<!DOCTYPE a [<!ENTITY % x SYSTEM 'file:///etc/passwd'> %x;]><annotation/>",
    "unknown entity": "<annotation>&nothing;</annotation>",
    "unknown encoding": "<?xml version='1.0' encoding='no-such'?><annotation/>",
    "wide encoding": "<?xml version='1.0' encoding='utf-7'?><annotation/>",
    "no end": "<annotation><object>",
    "empty": "",
    "nul": "<annotation>\0</annotation>",
    "infinite": f"<annotation>{BOX.replace('<xmin>1', '<xmin>1e999')}</annotation>",
    "no number": f"<annotation>{BOX.replace('<xmin>1', '<xmin>nan')}</annotation>",
    "digits": f"<annotation>{BOX.replace('<xmin>1', '<xmin>' + '9' * 5000)}</annotation>",
    "infinite size": f"<annotation><size><width>inf</width><height>1e400</height></size>{BOX}</annotation>",
    "negative size": f"<annotation><size><width>-8</width><height>6</height></size>{BOX}</annotation>",
    "huge size": f"<annotation><size><width>1e30</width><height>1e30</height></size>{BOX}</annotation>",
}


@pytest.mark.reliability(
    area="security",
    fault="VOC files with entity bombs, external entities, unknown encodings, infinite numbers",
    outcome="refused with the file's path; no entity is expanded or fetched",
)
def test_evil_xml_is_refused(house, record_property):
    (house / "xml").mkdir()
    for text in EVIL_XML.values():
        (house / "xml" / "a.xml").write_text(text)
        with pytest.raises(DataError, match=r"a\.xml"):
            VocDataset(annotations=house / "xml", images=house / "images")
    (house / "xml" / "a.xml").write_text(
        "<annotation>" + "<a>" * 100_000 + "</a>" * 100_000 + BOX + "</annotation>"
    )
    assert len(VocDataset(annotations=house / "xml", images=house / "images")[0]["boxes"]) == 1
    record_property("tried", len(EVIL_XML) + 1)


# ------------------------------------------------------------------------------------------------------ JSON


def coco_text(house, **changes):
    data = json.loads(write_coco(house, "a2.png").read_text())
    data["annotations"][0] |= changes
    return json.dumps(data)


HUGE = "9" * 400
EVIL_JSON = {
    "deep list": "[" * 100_000,
    "deep object": '{"images":' * 100_000,
    "digits": '{"images": ' + "9" * 10_000 + "}",
    "not text": b"\xff\xfe\x00",
    "empty": "",
    "huge id": '{"images": [{"id": %s, "file_name": "a.png"}], "annotations": [], "categories": []}'.replace(
        "%s", HUGE
    ),
    "huge height": '{"images": [{"id": 1, "file_name": "a.png", "height": %s, "width": 8}], "annotations": [], '
    '"categories": [{"id": 1, "name": "cat"}]}'.replace("%s", HUGE),
    "huge box": '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"id": 1, "image_id": 1, '
    '"category_id": 1, "bbox": [1, 1, %s, 2]}], "categories": [{"id": 1, "name": "cat"}]}'.replace(
        "%s", HUGE
    ),
    "huge area": '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"id": 1, "image_id": 1, "area": %s, '
    '"category_id": 1, "bbox": [1, 1, 2, 2]}], "categories": [{"id": 1, "name": "cat"}]}'.replace("%s", HUGE),
    "no name": '{"images": [{"id": 1, "file_name": null}], "annotations": [], '
    '"categories": [{"id": 1, "name": "cat"}]}',
}


@pytest.mark.reliability(
    area="security",
    fault="COCO files with thousands of levels or digits, numbers beyond 64 bits, no text",
    outcome="refused with the file's path",
)
def test_evil_json_is_refused(house, record_property):
    path = house / "evil.json"
    for text in EVIL_JSON.values():
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(DataError, match=r"evil\.json"):
            CocoDataset(annotations=path, images=house / "images")
    record_property("tried", len(EVIL_JSON))


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "-Infinity", "1e999", "-1e300"])
@pytest.mark.parametrize("place", range(4))
@pytest.mark.reliability(
    area="data",
    fault="a COCO box with NaN, infinite or absurd numbers",
    outcome="left out and counted, or refused with policy='error'; training never sees it",
)
def test_boxes_that_are_no_numbers_are_left_out(house, bad, place):
    box = ["1", "1", "3", "3"]
    box[place] = bad
    path = house / "evil.json"
    path.write_text(coco_text(house).replace("[1, 1, 3, 3]", f"[{', '.join(box)}]"))
    data = CocoDataset(annotations=path, images=house / "images")
    boxes = data[0]["boxes"]
    assert boxes.isfinite().all()
    assert (boxes >= 0).all()
    assert (boxes <= 8).all()
    with pytest.raises(DataError, match=r"extent inside the image|reaches out"):
        CocoDataset(annotations=path, images=house / "images", policy="error")


# ----------------------------------------------------------------------------------------------------- masks


@pytest.mark.reliability(
    area="security",
    fault="masks that would take gigabytes: run lengths and polygons of absurd sizes, numbers without end",
    outcome="refused before memory is taken",
)
def test_absurd_masks_are_refused(house, record_property):
    runs = [
        {"size": [10**9, 10**9], "counts": [10**18]},
        {"size": [2**31, 2**31], "counts": [0, 2**62]},
        {"size": [6, 8], "counts": [10**30]},
        {"size": [6, 8], "counts": [-(10**18), 10**18 + 48]},
        {"size": [6, 8], "counts": "o" * 1_000_000},
        {"size": [6, 8], "counts": "oooooooooooooooo1"},
        {"size": [6, 8], "counts": "\udcff"},
        {"size": [6.5, 8], "counts": [48]},
        {"size": ["6", "8"], "counts": [48]},
        {"size": [-6, -8], "counts": [48]},
    ]
    for run in runs:
        packed, _ = Segmentations.parse([run])
        for size in ((6, 8), (10**9, 10**9)):
            with pytest.raises(DataError, match=r"mask"):
                packed.dense(0, size)
            with pytest.raises(DataError, match=r"mask"):
                packed.encode(0, size)
    zigzag = [x for i in range(1000) for x in ((-1) ** i * 9e5, float(i))]
    for polygon in (
        zigzag,
        [0, 0, 1e7, 0, 0, 1e7],
        [0, 0, float("nan"), 1, 1, 1],
        [0, 0, float("inf"), 1, 1, 1],
    ):
        with pytest.raises(DataError, match="polygon"):
            Segmentations.parse([[polygon]])
    square, _ = Segmentations.parse([[[0, 0, 4, 0, 4, 4, 0, 4]], {"size": [6, 8], "counts": [0, 4, 44]}])
    with pytest.raises(DataError, match="more than 178956970 in all"):
        square.encode(0, (10**6, 10**6))
    assert square.dense(0, (6, 8)).sum() == 16
    assert square.dense(1, (6, 8)).sum() == 4
    record_property("tried", 2 * len(runs) + 5)


def test_absurd_sizes_do_not_reach_evaluation(house):
    """Ground truth is made from annotations before any image is opened."""
    data = json.loads(write_coco(house, "b.png").read_text())
    data["images"][0] |= {"width": 10**6, "height": 10**6}
    data["annotations"][0]["segmentation"] = {"size": [10**6, 10**6], "counts": [10**12]}
    path = house / "evil.json"
    path.write_text(json.dumps(data))
    dataset = CocoDataset(annotations=path, images=house / "images", with_masks=True)
    metric = CocoMetric(iou_types=("segm",))
    metric.start(dataset)
    nothing = ImageDetections(
        torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 1, 1) > 0
    )
    metric.update((1, 2), [nothing, nothing])
    with pytest.raises(DataError, match="mask of an image of 1000000 x 1000000 pixels"):
        metric.compute()


# ---------------------------------------------------------------------------------------------------- images


def png(width, height, *chunks, data=b""):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def gif(width, height):
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + screen + frame + b";"


def tiff(width, height):
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
               (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, 10)]  # fmt: skip
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)


def bmp(width, height):
    return (
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    )


BOMBS = {
    "png": png(100_000, 100_000),
    "ratio.png": png(30_000, 30_000, data=bytes(10_000_000)),
    "gif": gif(65_000, 65_000),
    "tiff": tiff(100_000, 100_000),
    "odd.tiff": tiff(2**32 - 1, 2**32 - 1),
    "bmp": bmp(60_000, 60_000),
    "ppm": b"P6\n100000 100000\n255\n",
    "text.png": png(4, 4, (b"zTXt", b"k\0\0" + zlib.compress(bytes(200_000_000)))),
    "profile.png": png(4, 4, (b"iCCP", b"k\0\0" + zlib.compress(bytes(200_000_000)))),
}


@pytest.mark.reliability(
    area="security",
    fault="image bombs: files of a few bytes that say they have thousands of megapixels (PNG, GIF, TIFF, BMP, PPM)",
    outcome="refused from their head, with size and limit in the message",
)
def test_image_bombs_are_refused(tmp_path, record_property):
    for name, content in BOMBS.items():
        path = tmp_path / f"bomb.{name}"
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"bomb\.{name}: ") as error:
            ImageReader(tmp_path, 100_000_000, "auto")(path.name)
        if "text" not in name and "profile" not in name:
            assert "more than max_pixels=100000000" in str(error.value) or "limit of 178956970" in str(
                error.value
            )
    record_property("tried", len(BOMBS))


def encoded(kind, **options):
    stream = io.BytesIO()
    Image.fromarray(np.arange(16 * 12 * 3, dtype=np.uint8).reshape(12, 16, 3)).save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.reliability(
    area="data",
    fault="images cut off anywhere or with bytes changed anywhere (JPEG, PNG, GIF, TIFF, WEBP, BMP)",
    outcome="an image of some pixels, or an error with the file's path; never another error",
)
def test_damaged_images(tmp_path, record_property):
    sound = [encoded(kind) for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP")]
    read, tried = ImageReader(tmp_path, 1_000_000, "auto"), 0

    @settings(max_examples=300, deadline=None)
    @given(
        st.sampled_from(sound),
        st.integers(0, 900),
        st.lists(st.tuples(st.integers(0, 900), st.integers(0, 255)), max_size=6),
    )
    def check(content, length, changes):
        nonlocal tried
        tried += 1
        damaged = bytearray(content)
        for place, value in changes:
            damaged[place % len(damaged)] = value
        (tmp_path / "a.img").write_bytes(damaged[: length or None])
        with suppress(DataError):
            assert read("a.img").shape[0] == 3

    check()
    record_property("tried", tried)


@pytest.mark.parametrize("value", [b"\xff" * 60_000, b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0", b""])
def test_damaged_camera_notes_are_no_reason_to_refuse(tmp_path, value):
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG", exif=value))
    assert ImageReader(tmp_path, 1000, "auto")("a.jpg").shape == (3, 12, 16)


def test_orientation_that_is_no_number(tmp_path):
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHI4sI", 8, 1, 0x0112, 2, 4, b"up\0\0", 0)
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG", exif=exif))
    assert ImageReader(tmp_path, 1000, "auto")("a.jpg").shape == (3, 12, 16)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_what_is_no_file_is_not_opened(tmp_path):
    """A pipe would be waited for, a device read without end."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(DataError, match="it is no regular file"):
            ImageReader(tmp_path, 1000, "auto")(name)


def test_a_name_of_any_script_is_a_name(tmp_path):
    for name in ("日本/画像.png", "é" * 100, "a b.png", "..a/b..png", "~/a.png"):
        assert check_inside(tmp_path, name) == name
