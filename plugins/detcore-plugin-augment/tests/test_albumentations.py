from __future__ import annotations

import json
import pickle
import subprocess
import sys

import pytest
import torch
from detcore_augment import Albumentations, albumentations_names
from detcore_augment.albumentations_names import ALLOWED, plain
from detcore_data import ShapesDataset, collate, seeded
from detcore_data.inspection.seen import seen_objects
from torch.utils.data import DataLoader

from detcore import build, dump
from detcore.errors import ConfigError, DataError
from detcore.structures import ImageGeometry

FLIP = {"type": "HorizontalFlip", "p": 1.0}


@pytest.fixture
def package():
    """The package; imported the way the adapter does, which keeps it from asking a server."""
    pytest.importorskip("albumentations", reason="albumentations is not installed (an extra of the plugin)")
    return albumentations_names.package()


def test_everything_goes_along(package, picture, boxes_by_label):
    before = picture(ignore=(1,))
    item = Albumentations(transforms=(FLIP,))(before)
    assert boxes_by_label(item) == {0: [22, 3, 30, 11], 1: [2, 2, 20, 9], 2: [12, 12, 18, 22]}
    assert item["ignore"].tolist() == [False, True, False]
    assert torch.equal(item["image"], before["image"].flip(-1))
    assert torch.equal(item["masks"], before["masks"].flip(-1))
    assert (item["image"].dtype, item["boxes"].dtype) == (torch.uint8, torch.float32)
    assert (item["masks"].dtype, item["labels"].dtype) == (torch.bool, torch.int64)
    assert item["image"].is_contiguous()


def test_the_way_back_is_kept_where_no_pixel_moves(package, picture):
    before = picture()
    before["geometry"] = ImageGeometry((48, 64), scale=(0.5, 0.5))
    colours = Albumentations(
        transforms=(
            {"type": "RandomBrightnessContrast", "p": 1.0},
            {"type": "OneOf", "transforms": [{"type": "Blur"}]},
        )
    )(before)
    assert colours["geometry"] == before["geometry"]
    assert not torch.equal(colours["image"], before["image"])
    assert Albumentations(transforms=(FLIP,))(before)["geometry"] == ImageGeometry((24, 32))
    inside = Albumentations(transforms=({"type": "OneOf", "transforms": [FLIP]},))(before)
    assert inside["geometry"] == ImageGeometry((24, 32))


@pytest.mark.parametrize(
    ("parameters", "kept"),
    [({}, [0, 1]), ({"min_visibility": 0.3}, [1]), ({"min_bbox_size": 9}, [])],
)
@pytest.mark.parametrize("masks", [True, False])
def test_objects_that_are_cut_off(parameters, kept, masks, package, picture, seen, boxes_by_label):
    before = picture((24, 32), ((2, 2, 12, 12), (10, 14, 20, 22)), masks=masks)
    crop = {"type": "Crop", "x_min": 10, "y_min": 0, "x_max": 30, "y_max": 24}
    item = Albumentations(transforms=(crop,), **parameters)(before)
    assert item["labels"].tolist() == kept
    shown = seen(item["image"])
    assert boxes_by_label(item) == {label: shown[label] for label in kept}
    if masks:
        assert [int(mask.sum()) for mask in item["masks"]] == [{0: 20, 1: 80}[k] for k in kept]


def test_regions_to_ignore_are_kept_when_small(package, picture):
    before = picture((24, 32), ((2, 2, 12, 12),), ignore=(0,))
    crop = {"type": "Crop", "x_min": 10, "y_min": 0, "x_max": 30, "y_max": 24}
    assert Albumentations(transforms=(crop,), min_bbox_size=9)(before)["ignore"].tolist() == [True]


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (1200, 900)])
@pytest.mark.parametrize("boxes", [(), ((0, 0, 1, 1),)])
def test_sizes_and_no_objects(size, boxes, package, picture):
    before = picture(size, boxes)
    item = Albumentations(transforms=(FLIP, {"type": "ToGray", "p": 0.5}))(before)
    assert len(item["boxes"]) == len(item["masks"]) == len(boxes)
    assert sorted(item["image"].shape[-2:]) == sorted(size)
    assert torch.equal(before["image"], picture(size, boxes)["image"])


def test_transforms_draw_apart_from_each_other(package, picture):
    """With one seed for each of them, both would always be drawn together."""
    both = Albumentations(
        transforms=({"type": "HorizontalFlip", "p": 0.5}, {"type": "VerticalFlip", "p": 0.5})
    )
    before = picture(boxes=((2, 3, 10, 11),))
    torch.manual_seed(0)
    found = {tuple(both(before)["boxes"][0].tolist()) for _ in range(60)}
    assert found == {(2, 3, 10, 11), (22, 3, 30, 11), (2, 13, 10, 21), (22, 13, 30, 21)}


@pytest.mark.reliability(
    area="determinism",
    fault="transforms of albumentations, with random numbers of their own, read by two workers in another order",
    outcome="every item equals that of one process, bit for bit",
)
def test_seed_epoch_and_index_decide(package, tmp_path, record_property):
    steps = (
        Albumentations(
            transforms=(
                {"type": "SafeRotate"},
                {"type": "GaussNoise"},
                {"type": "SomeOf", "n": 1, "transforms": [{"type": "Blur"}, FLIP]},
            )
        ),
    )
    data = seeded(ShapesDataset(root=tmp_path, length=6, size=(48, 64), transforms=steps, with_masks=True), 3)
    alone = [data[i] for i in reversed(range(6))][::-1]
    for item, batch in zip(
        alone, DataLoader(data, batch_size=1, num_workers=2, collate_fn=collate), strict=True
    ):
        assert torch.equal(item["image"], batch.images[0])
        assert torch.equal(item["boxes"], batch.targets.boxes[0, : len(item["boxes"])])
    record_property("tried", len(alone))
    data.set_epoch(1)
    assert not any(torch.equal(one["image"], data[i]["image"]) for i, one in enumerate(alone))


def test_inspection_sees_through_it(package, tmp_path):
    steps = (Albumentations(transforms=(FLIP, {"type": "SafeRotate", "p": 1.0})),)
    data = ShapesDataset(root=tmp_path, length=3, size=(48, 64), transforms=steps)
    for found in seen_objects(data.records, data.records.sizes, steps, range(3), seed=4):
        item = seeded(data, 4)[found.image]
        torch.testing.assert_close(found.boxes, item["boxes"].as_subclass(torch.Tensor))


def test_three_ways_to_say_it(package, picture):
    made = [package.HorizontalFlip(p=0.5), package.OneOf([package.Blur(p=1), package.ToGray(p=1)], p=0.3)]
    written = (
        {"type": "HorizontalFlip", "p": 0.5},
        {"type": "OneOf", "p": 0.3, "transforms": [{"type": "Blur", "p": 1}, {"type": "ToGray", "p": 1}]},
    )
    whole = package.Compose(made, bbox_params=package.BboxParams("coco", label_fields=["a"]))
    specs = [
        dump(Albumentations(transforms=steps))
        for steps in (made, whole, whole.to_dict(), json.loads(json.dumps(whole.to_dict())))
    ]
    assert all(spec == specs[0] for spec in specs)
    items = []
    for transform in (
        Albumentations(transforms=written),
        build(specs[0]),
        pickle.loads(pickle.dumps(build(specs[0]))),
    ):
        torch.manual_seed(5)
        items.append(transform(picture())["image"])
    assert all(torch.equal(item, items[0]) for item in items)
    assert json.loads(json.dumps(specs[0])) == specs[0]


def test_every_accepted_name_exists(package):
    assert [name for name in ALLOWED if not hasattr(package, name)] == []


@pytest.mark.reliability(
    area="security",
    fault="a configuration names a class of another module, a callable, or a transform that reads files",
    outcome="refused with the name, before albumentations is imported",
)
@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            {"type": "os.system"},
            "'os.system' is not a name of albumentations itself; write it as a transform of detcore",
        ),
        (
            {"__class_fullname__": "subprocess.Popen", "args": "ls"},
            "'subprocess.Popen' is not a name of albumentations",
        ),
        ({"__class_fullname__": "albumentations.core.utils.np"}, "is not a name of albumentations itself"),
        ({"type": "Lambda", "image": "eval"}, "'Lambda' is not among the accepted transforms"),
        (
            {"type": "HistogramMatching", "reference_images": ["/etc/passwd"]},
            "'HistogramMatching' is not among",
        ),
        ({"type": "TextImage", "font_path": "x"}, "'TextImage' is not among"),
        ({"type": "__import__"}, "'__import__' is not among"),
        ({"type": "OneOf", "transforms": [{"type": "sys.exit"}]}, "OneOf: 'sys.exit' is not a name of"),
        ({"type": "HorizontalFlop"}, "did you mean 'HorizontalFlip'"),
        ({"type": "Blur", "p": print}, "Blur: p should be plain data, got a builtin_function_or_method"),
        ({}, "None is not among the accepted transforms"),
        (
            "HorizontalFlip",
            "expected a mapping with 'type' or a transform of albumentations, got 'HorizontalFlip'",
        ),
    ],
)
def test_what_is_refused(step, message, monkeypatch):
    monkeypatch.setattr(albumentations_names, "package", lambda: pytest.fail("was imported"))
    with pytest.raises(ConfigError, match=message):
        Albumentations(transforms=(step,))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            {"type": "Blur", "blur_limits": 3},
            "transforms.0: Blur has no parameter 'blur_limits'; it has blur_limit, p",
        ),
        ({"type": "Blur", "p": 2}, "transforms.0: Blur: "),
        ({"type": "OneOf", "transforms": []}, r"transforms.0: OneOf needs a list of transforms, got \[\]"),
        (
            {"type": "OneOf", "transforms": [{"type": "Blur", "q": 3}]},
            "transforms.0.transforms.0: Blur has no parameter 'q'",
        ),
    ],
)
def test_wrong_parameters(step, message, package):
    with pytest.raises(ConfigError, match=message):
        Albumentations(transforms=(step,))


def test_transforms_of_others_are_refused(package):
    def brighter(image, **more):
        return image

    class Own(package.ImageOnlyTransform):
        def apply(self, img, **params):
            return img

    with pytest.raises(ConfigError, match=r"Own.* is not "):
        Albumentations(transforms=(Own(),))
    with pytest.raises(ConfigError, match="Lambda"):
        Albumentations(transforms=(package.Lambda(image=brighter),))
    with pytest.raises(ConfigError, match="at least 1"):
        Albumentations(transforms=())


def test_failures_name_the_file(package, picture):
    crop = Albumentations(transforms=({"type": "RandomCrop", "height": 100, "width": 100},))
    with pytest.raises(DataError, match=r"7\.png: albumentations: .*100"):
        crop(picture())


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "albumentations", None)
    spec = Albumentations.spec(transforms=(FLIP,))  # a file can be checked all the same
    with pytest.raises(
        ConfigError,
        match=r'needs the package albumentations .*pip install "detcore-plugin-augment\[albumentations\]"',
    ):
        spec.build()


def test_plain_forms():
    assert plain([{"type": "Blur", "blur_limit": (3, 5)}]) == [{"type": "Blur", "blur_limit": [3, 5]}]
    nested = {"__class_fullname__": "Compose", "p": 0.5, "transforms": [FLIP], "bbox_params": None}
    assert plain([nested]) == [{"type": "Sequential", "p": 0.5, "transforms": [FLIP]}]
    assert plain({**nested, "p": 1.0}) == [FLIP]


@pytest.mark.reliability(
    area="security",
    fault="albumentations, which asks a server for its newest version, is imported without a network",
    outcome="no connection is tried, and nothing is imported before a transform is made",
)
@pytest.mark.slow
def test_no_connection(package):
    code = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("a connection was tried")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from detcore_augment.albumentations_names import package
assert "albumentations" not in sys.modules and "cv2" not in sys.modules
package()
assert "albumentations" in sys.modules
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
