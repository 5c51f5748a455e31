from __future__ import annotations

import numpy as np
import pytest
import torch
from detcore_data.images import ImageReader, check_file, check_folder, check_inside
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from detcore.errors import DataError


def _pixels(height=4, width=6):
    return np.random.RandomState(0).randint(0, 256, (height, width, 3), dtype=np.uint8)


def _reader(folder, max_pixels=10_000, exif="auto"):
    return ImageReader(folder, max_pixels, exif)


def test_rgb_as_it_is(tmp_path):
    Image.fromarray(_pixels()).save(tmp_path / "a.png")
    image = _reader(tmp_path)("a.png", (4, 6))
    assert image.dtype == torch.uint8
    assert torch.equal(image, torch.from_numpy(_pixels()).permute(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_other_modes_become_rgb(tmp_path, mode):
    image = Image.fromarray(_pixels()).convert(mode)
    name = "a.tif" if mode == "CMYK" else "a.png"
    image.save(tmp_path / name)
    found = _reader(tmp_path)(name)
    expected = np.array(image.convert("RGB"))
    assert torch.equal(found, torch.from_numpy(expected).permute(2, 0, 1))


def test_transparent_palette(tmp_path):
    image = Image.fromarray(_pixels()).convert("P")
    image.save(tmp_path / "a.png", transparency=bytes([0, 128, 255]))
    assert _reader(tmp_path)("a.png").shape == (3, 4, 6)


def test_16_bit_grey_is_scaled(tmp_path):
    grey = np.array([[0, 257, 128 * 257], [65535, 128, 129]], dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    found = _reader(tmp_path)("a.png")
    assert found[0].tolist() == [[0, 1, 128], [255, 0, 1]]
    assert torch.equal(found[0], found[1])


def test_floating_point_is_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: floating-point pixels have no defined range"):
        _reader(tmp_path)("a.tif")


def _save_turned(path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(_pixels()).save(path, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path, orientation):
    _save_turned(tmp_path / "a.png", orientation)
    with Image.open(tmp_path / "a.png") as image:
        expected = np.array(ImageOps.exif_transpose(image))
    upright = torch.from_numpy(expected).permute(2, 0, 1)
    assert torch.equal(_reader(tmp_path)("a.png"), upright)
    assert torch.equal(_reader(tmp_path)("a.png", expected.shape[:2]), upright)
    stored = torch.from_numpy(_pixels()).permute(2, 0, 1)
    assert torch.equal(_reader(tmp_path, exif="ignore")("a.png"), stored)


def test_orientation_follows_the_annotation(tmp_path):
    _save_turned(tmp_path / "a.png", 6)
    assert _reader(tmp_path)("a.png", (4, 6)).shape == (3, 4, 6)
    assert _reader(tmp_path)("a.png", (6, 4)).shape == (3, 6, 4)
    with pytest.raises(
        DataError, match=r"a\.png: the image is 4 x 6 pixels \(w x h\) but its annotation says 6 x 4"
    ):
        _reader(tmp_path, exif="apply")("a.png", (4, 6))


def test_wrong_size(tmp_path):
    Image.fromarray(_pixels()).save(tmp_path / "a.png")
    with pytest.raises(
        DataError, match=r"a\.png: the image is 6 x 4 .* says 4 x 6; the annotation has them swapped"
    ):
        _reader(tmp_path)("a.png", (6, 4))


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"none\.png: the image does not exist"):
        _reader(tmp_path)("none.png")


@pytest.mark.parametrize("kept", [0, 10, 300, 700])
def test_truncated_jpeg(tmp_path, kept):
    Image.fromarray(_pixels(64, 64)).save(tmp_path / "whole.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:kept])
    with pytest.raises(DataError, match=r"a\.jpg: (the image cannot be decoded|not an image)"):
        _reader(tmp_path)("a.jpg")


def test_a_folder_is_no_image(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(DataError, match=r"a\.png: the image cannot be decoded"):
        _reader(tmp_path)("a.png")


def test_image_bomb(tmp_path):
    Image.new("1", (200, 100)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: 200 x 100 pixels are more than max_pixels=19999"):
        _reader(tmp_path, max_pixels=19_999)("a.png")
    assert _reader(tmp_path, max_pixels=20_000)("a.png").shape == (3, 100, 200)


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "a/../../b.png",
        "/etc/passwd",
        "",
        "..",
        "\\share\\a.png",
        "C:\\a.png",
        "..\\a.png",
        "a\0.png",
    ],
)
def test_paths_that_lead_out(tmp_path, name):
    with pytest.raises(DataError, match="leads out of the image folder"):
        check_inside(tmp_path, name)


@pytest.mark.parametrize("name", ["a.png", "sub/a.png", "a..b/c...png", "sub/./a.png"])
def test_paths_that_stay(tmp_path, name):
    assert check_inside(tmp_path, name) == name


@given(st.text(alphabet="./\\a:", max_size=12))
def test_accepted_paths_stay_below_the_root(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp()
    try:
        check_inside(root, name)
    except DataError:
        return
    assert (root / name).resolve().is_relative_to(root.resolve())


def test_folders_and_files(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"images: the folder .*none does not exist"):
        check_folder(tmp_path / "none", "images")
    with pytest.raises(DataError, match=r"images: the folder .*file is a file"):
        check_folder(tmp_path / "file", "images")
    with pytest.raises(DataError, match=r"split: the file .* is a folder"):
        check_file(tmp_path, "split")
