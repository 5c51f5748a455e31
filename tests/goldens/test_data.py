"""Transforms against MMDetection's numbers."""

from __future__ import annotations

import pytest
import torch
from detcore_data import MultiScaleResize, Pad, RandomFlip, Resize
from detcore_data.functional import rescaled_size
from detcore_data.ground_truth import to_file_pixels
from torch import Tensor
from torchvision import tv_tensors

from detcore.detectors.preprocessor import ImagePreprocessor
from detcore.interfaces import Example
from detcore.structures import ImageGeometry
from detcore.testing.goldens import missing, read, task_cases

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


def cases(*classes, **kwargs):
    found = task_cases("data", *classes, **kwargs)
    return pytest.mark.parametrize("case", found, ids=[case["id"] for case in found])


def example(size: tuple[int, int], boxes: Tensor, image: Tensor | None = None) -> Example:
    pixels = (
        torch.zeros(3, *size, dtype=torch.uint8) if image is None else image.permute(2, 0, 1).to(torch.uint8)
    )
    return Example(
        image=tv_tensors.Image(pixels),
        boxes=tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
        labels=torch.zeros(len(boxes), dtype=torch.int64),
        ignore=torch.zeros(len(boxes), dtype=torch.bool),
        image_id=0,
        file="golden",
        geometry=ImageGeometry(size),
    )


def sizes_of(inputs):
    return [(h, w) for h, w in inputs["size_hw"].tolist()]


@cases("mmcv.rescale_size")
def test_rescale_size(case):
    inputs, outputs = read(case, "inputs"), read(case, "outputs")
    found = [rescaled_size(size, tuple(case["call"]["scale"])) for size in sizes_of(inputs)]
    assert found == [tuple(size) for size in outputs["new_hw"].tolist()]


@cases("Resize")
def test_resize(case):
    inputs, outputs = read(case, "inputs"), read(case, "outputs")
    transform = Resize(scale=case["args"]["scale"], keep_ratio=case["args"]["keep_ratio"], antialias=False)
    pad = Pad(size_divisor=32)
    boxes = inputs["gt_bboxes"].expand(len(inputs["size_hw"]), -1, 4)
    for i, size in enumerate(sizes_of(inputs)):
        item = transform(example(size, boxes[i]))
        new = tuple(item["image"].shape[-2:])
        assert list(new) == outputs["img_shape_hw"][i].tolist()
        assert item["geometry"].scale == pytest.approx(outputs["scale_factor_wh64"][i].tolist(), rel=1e-12)
        torch.testing.assert_close(
            item["boxes"].as_subclass(Tensor), outputs["gt_bboxes"][i], rtol=1e-6, atol=1e-4
        )
        assert list(pad.size_of(new)) == outputs["padded_hw"][i].tolist()


@cases("ResizeShortestEdge")
def test_shortest_edge(case):
    inputs, outputs = read(case, "inputs"), read(case, "outputs")
    transform = Resize(**case["args"])
    assert [list(transform.size_of(s)) for s in sizes_of(inputs)] == outputs["img_shape_hw"].tolist()


@cases("Pad", where=lambda case: "size_hw" in case["inputs"])
def test_padded_sizes(case):
    inputs, outputs = read(case, "inputs"), read(case, "outputs")
    transform = Pad(**case["args"])
    assert [list(transform.size_of(size)) for size in sizes_of(inputs)] == outputs["padded_hw"].tolist()
    if list(case["args"]) == ["size_divisor"]:  # the same inside a detector
        preprocess = ImagePreprocessor(size_divisor=case["args"]["size_divisor"])
        for size, padded in zip(sizes_of(inputs), outputs["padded_hw"].tolist(), strict=True):
            batch = preprocess([torch.zeros(3, *size, dtype=torch.uint8)])
            assert list(batch.pixels.shape[-2:]) == batch.padded_sizes[0].tolist() == padded


@cases("Pad", where=lambda case: "img" in case["inputs"])
def test_padded_images(case):
    image = read(case, "inputs")["img"]
    arguments = {**case["args"]}
    if "pad_val" in arguments:
        arguments["pad_val"] = arguments["pad_val"]["img"]
    item = Pad(**arguments)(example(tuple(image.shape[:2]), torch.zeros(0, 4), image))
    assert torch.equal(item["image"].permute(1, 2, 0).long(), read(case, "outputs")["img"])


@cases("RandomFlip")
def test_flip(case):
    inputs, outputs = read(case, "inputs"), read(case, "outputs")
    item = RandomFlip(**case["args"])(
        example(tuple(inputs["img"].shape[:2]), inputs["gt_bboxes"], inputs["img"])
    )
    assert torch.equal(item["image"].permute(1, 2, 0).long(), outputs["img"])
    torch.testing.assert_close(item["boxes"].as_subclass(Tensor), outputs["gt_bboxes"], rtol=0, atol=1e-6)


def draws(transform, count=300):
    torch.manual_seed(0)
    return [transform.draw() for _ in range(count)]


@cases("RandomChoiceResize")
def test_one_of_several_scales(case):
    size, outputs = tuple(case["call"]["size_hw"]), read(case, "outputs")
    found = {rescaled_size(size, scale) for scale in draws(MultiScaleResize(**case["args"]))}
    assert found == {tuple(allowed) for allowed in outputs["allowed_hw"].tolist()}


@cases("RandomResize", where=lambda case: "ratio_range" not in case["args"])
def test_scales_between_two(case):
    outputs = read(case, "outputs")
    found = draws(MultiScaleResize(scales=case["args"]["scale"], mode="range"), 2000)
    for edge, lengths in (("long", [w for w, _ in found]), ("short", [h for _, h in found])):
        assert (min(lengths), max(lengths)) == (outputs[f"{edge}_min"], outputs[f"{edge}_max"])


@cases("RandomResize", where=lambda case: "ratio_range" in case["args"])
def test_scales_by_a_factor(case):
    outputs = read(case, "outputs")
    found = draws(
        MultiScaleResize(scales=(case["args"]["scale"],), ratio_range=case["args"]["ratio_range"]), 2000
    )
    assert all(width == height for width, height in found)
    edges = [width for width, _ in found]
    assert outputs["min"] <= min(edges) <= outputs["seen_min"] + 5
    assert outputs["seen_max"] - 5 <= max(edges) <= outputs["max"]


def flip_cases(name):
    found = task_cases("transforms", name, where=lambda case: not case["id"].endswith("k8"))
    return pytest.mark.parametrize("case", found, ids=[case["id"] for case in found])


@flip_cases("bbox_flip")
def test_bbox_flip(case):
    size = tuple(case["call"]["img_shape"][:2])
    boxes = read(case, "inputs")["bboxes"]
    item = RandomFlip(prob=1.0, direction=case["call"]["direction"])(example(size, boxes))
    expected = read(case, "outputs")["bboxes"]
    torch.testing.assert_close(item["boxes"].as_subclass(Tensor), expected, rtol=1e-6, atol=1e-4)


@flip_cases("bbox_mapping_back")
def test_bbox_mapping_back(case):
    call = case["call"]
    axes = {"horizontal": (True, False), "vertical": (False, True), "diagonal": (True, True)}
    geometry = ImageGeometry((1, 1), scale=tuple(call["scale_factor"][:2]), flip=axes[call["flip_direction"]])
    found = to_file_pixels(read(case, "inputs")["bboxes"], tuple(call["img_shape"]), geometry)
    torch.testing.assert_close(found, read(case, "outputs")["bboxes"], rtol=1e-6, atol=1e-4)
