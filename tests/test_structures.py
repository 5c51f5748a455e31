"""The structures: construction, messages, conversions, and what torch does with them."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle
from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils import _pytree
from torchvision.models.detection.roi_heads import paste_masks_in_image

from detcore import structures
from detcore.errors import DataError
from detcore.masks import Masks
from detcore.structures import (
    ApproxPriors,
    Assignment,
    ClassMap,
    DenseOutput,
    Detections,
    FeatureSpec,
    HeadOutput,
    ImageBatch,
    ImageDetections,
    ImageGeometry,
    LevelShape,
    Losses,
    Pairs,
    Predictions,
    PriorLevel,
    Priors,
    Proposals,
    Sample,
    Targets,
)


def box(*rows):
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def example(n, **more):
    return {"boxes": torch.arange(4.0 * n).reshape(n, 4), "labels": torch.arange(n), **more}


def assert_same(a, b):
    assert type(a) is type(b)
    for field in dataclasses.fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if dataclasses.is_dataclass(x):
            assert_same(x, y)
        elif isinstance(x, torch.Tensor):
            torch.testing.assert_close(x, y, rtol=0, atol=0)
        else:
            assert x == y


# --------------------------------------------------------------------- FeatureSpec, ClassMap


@pytest.mark.parametrize("value", [0, -1, 1.5, "4", True, None])
@pytest.mark.parametrize("name", ["channels", "stride"])
def test_feature_spec_refuses_what_is_no_positive_integer(name, value):
    with pytest.raises(ValueError, match=rf"FeatureSpec.{name} should be a positive integer, got {value!r}"):
        FeatureSpec(**{"channels": 4, "stride": 8, name: value})


def test_feature_specs_compare_by_value():
    assert FeatureSpec(256, 8) == FeatureSpec(channels=256, stride=8)
    assert FeatureSpec(256, 8) != FeatureSpec(256, 16)


def test_class_map_with_ids():
    classes = ClassMap(("car", "person", "cat"), (3, 7, 90))
    assert len(classes) == 3
    assert classes.label_of("cat") == 2
    assert classes.label_of_id(7) == 1
    assert classes.to_dict() == {"names": ["car", "person", "cat"], "ids": [3, 7, 90]}
    assert ClassMap.from_dict(classes.to_dict()) == classes


def test_class_map_without_ids():
    assert ClassMap(["a", "b"]).ids == (0, 1)
    assert ClassMap(["a", "b"]).names == ("a", "b")
    assert ClassMap.from_dict({"names": ["a", "b"], "ids": []}) == ClassMap(("a", "b"))


@pytest.mark.parametrize(
    ("names", "ids", "message"),
    [
        ((), (), "a class map needs at least one class"),
        (("a", "b"), (1,), "a class map needs one id per name, got 2 names and 1 ids"),
        (("a", "b", "a"), (), r"class name 'a' occurs twice: \['a', 'b', 'a'\]"),
        (("a", "b", "c"), (1, 7, 7), r"class id 7 occurs twice: \[1, 7, 7\]"),
        ("cat", (), r"class names should be a list, got the text 'cat'; write \['cat'\]"),
        (("a", 3), (), "class name 3 should be of type str"),
        (("a", "b"), (1, "2"), "class id '2' should be of type int"),
        (("a", "b"), (1, True), "class id True should be of type int"),
    ],
)
def test_class_map_refuses(names, ids, message):
    with pytest.raises(DataError, match=message):
        ClassMap(names, ids)


def test_class_map_tells_the_nearest_name():
    classes = ClassMap(("car", "person"), (3, 7))
    with pytest.raises(
        DataError, match=r"^unknown class 'persn'; did you mean 'person'\?; the classes are: car, person$"
    ):
        classes.label_of("persn")
    with pytest.raises(DataError, match=r"^unknown class 'zzz'; the classes are: car, person$"):
        classes.label_of("zzz")
    with pytest.raises(DataError, match=r"unknown class id 0; the class map has ids \[3, 7\]"):
        classes.label_of_id(0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "class map: the key 'names' is missing"),
        ({"names": ["a"], "id": [1]}, "class map: unknown key 'id'; it holds names and ids"),
        ({"names": ["a"]}, "class map: the key 'ids' is missing"),
        ({"names": "a", "ids": []}, "class names should be a list"),
    ],
)
def test_class_map_from_a_wrong_dict(data, message):
    with pytest.raises(DataError, match=message):
        ClassMap.from_dict(data)


# -------------------------------------------------------------------------------- ImageBatch


def test_image_batch_of_pixels_alone():
    batch = ImageBatch.of(torch.zeros(2, 3, 32, 48))
    assert len(batch) == 2
    for table in (batch.sizes, batch.padded_sizes, batch.original_sizes):
        assert table.tolist() == [[32, 48], [32, 48]]
        assert table.dtype == torch.int64
    assert batch.scale.tolist() == [[1, 1], [1, 1]]
    assert batch.origin.tolist() == [[0, 0], [0, 0]]
    assert not batch.flip.any()


def test_image_batch_of_sizes_and_geometry():
    geometry = [ImageGeometry((100, 200), (0.5, 0.25), (3, 4), (True, False)), ImageGeometry((30, 40))]
    batch = ImageBatch.of(torch.zeros(2, 3, 32, 48), [(20, 30), (32, 40)], [(32, 32), (32, 48)], geometry)
    assert batch.sizes.tolist() == [[20, 30], [32, 40]]
    assert batch.padded_sizes.tolist() == [[32, 32], [32, 48]]
    assert batch.original_sizes.tolist() == [[100, 200], [30, 40]]
    assert batch.scale.tolist() == [[0.5, 0.25], [1, 1]]
    assert batch.origin.tolist() == [[3, 4], [0, 0]]
    assert batch.flip.tolist() == [[True, False], [False, False]]


def test_image_batch_takes_sizes_as_original_where_nothing_else_is_known():
    assert ImageBatch.of(torch.zeros(1, 3, 32, 48), [(20, 30)]).original_sizes.tolist() == [[20, 30]]


def test_image_batch_without_images():
    batch = ImageBatch.of(torch.zeros(0, 3, 32, 48))
    assert len(batch) == 0
    assert batch.scale.shape == (0, 2)


@pytest.mark.parametrize("name", ["sizes", "padded_sizes", "geometry"])
def test_image_batch_refuses_lists_of_the_wrong_length(name):
    value = [ImageGeometry((3, 3))] if name == "geometry" else [(3, 3)]
    with pytest.raises(DataError, match=f"{name}: expected one entry per image, got 1 for 2 images"):
        ImageBatch.of(torch.zeros(2, 3, 8, 8), **{name: value})


# ----------------------------------------------------------------------------------- Targets


def test_stack_pads_to_the_longest():
    targets = Targets.stack([example(3), example(0), example(1, ignore=torch.tensor([True]))])
    assert len(targets) == 3
    assert targets.boxes.shape == (3, 3, 4)
    assert targets.boxes.dtype == torch.float32
    assert targets.labels.dtype == torch.int64
    assert targets.valid.tolist() == [[True] * 3, [False] * 3, [True, False, False]]
    assert targets.ignore.tolist() == [[False] * 3, [False] * 3, [True, False, False]]
    assert targets.matchable.tolist() == [[True] * 3, [False] * 3, [False] * 3]
    assert torch.equal(targets.boxes[0], example(3)["boxes"])
    assert not targets.boxes[1:][~targets.valid[1:]].any()
    assert not targets.labels[~targets.valid].any()
    assert targets.masks is None


@pytest.mark.parametrize("images", [[], [example(0)], [example(0), example(0)]])
def test_stack_of_nothing_has_one_padded_row(images):
    targets = Targets.stack(images)
    assert targets.boxes.shape == (len(images), 1, 4)
    assert not targets.valid.any()


def test_stack_takes_lists_and_other_number_types():
    targets = Targets.stack(
        [
            {"boxes": [[0, 0, 4, 4]], "labels": [2]},
            {"boxes": [], "labels": []},
            {"boxes": torch.ones(1, 4, dtype=torch.float64), "labels": torch.tensor([1], dtype=torch.uint8)},
        ]
    )
    assert targets.boxes.dtype == torch.float32
    assert targets.labels.tolist() == [[2], [0], [1]]


def test_stack_leaves_the_callers_tensors_alone():
    image = example(2)
    targets = Targets.stack([image])
    image["boxes"].zero_()
    assert targets.boxes[0, 1].tolist() == [4, 5, 6, 7]


def test_stack_of_masks():
    masks = torch.zeros(2, 5, 7, dtype=torch.bool)
    masks[0, 1:3, 2:6] = True
    targets = Targets.stack(
        [example(2, masks=masks), example(0), example(0, masks=torch.zeros(0, 9, 4).bool())]
    )
    assert isinstance(targets.masks, Masks)
    assert targets.masks.image_size == (9, 7)
    assert targets.masks.areas().tolist() == [[8, 0], [0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([example(1), {"labels": [1]}], r"targets\[1\]: the key 'boxes' is missing"),
        ([{"boxes": box([0, 0, 1, 1])}], r"targets\[0\]: the key 'labels' is missing"),
        (
            [example(2, label=3)],
            r"targets\[0\]: unknown key 'label'; did you mean 'labels'\? known: boxes, labels",
        ),
        (
            [example(2, scores=3)],
            r"targets\[0\]: unknown key 'scores'; .*known: boxes, labels, ignore, masks",
        ),
        ([example(2) | {"labels": torch.zeros(3).long()}], r"targets\[0\]: 2 boxes but 3 labels"),
        ([example(2, ignore=torch.zeros(1).bool())], r"targets\[0\]: 2 boxes but 1 ignore"),
        ([example(2, masks=torch.zeros(3, 4, 4).bool())], r"targets\[0\]: 2 boxes but 3 masks"),
        (
            [example(2) | {"boxes": torch.zeros(2, 5)}],
            r"targets\[0\]: boxes should have shape \[n, 4\], got \[2, 5\]",
        ),
        (
            [example(4) | {"boxes": torch.zeros(4)}],
            r"targets\[0\]: boxes should have shape \[n, 4\], got \[4\]",
        ),
        (
            [example(2) | {"labels": torch.zeros(2, 1).long()}],
            r"targets\[0\]: labels should have shape \[n\], got \[2, 1\]",
        ),
        (
            [example(2) | {"labels": torch.zeros(2)}],
            r"targets\[0\]: labels should be integers, got torch.float32",
        ),
        (
            [example(2, masks=torch.zeros(2, 4).bool())],
            r"targets\[0\]: masks should have shape \[n, h, w\], got \[2, 4\]",
        ),
        (
            [example(1, masks=torch.zeros(1, 4, 4).bool()), example(2)],
            r"targets\[1\]: 2 boxes without masks, while other images have them",
        ),
    ],
)
def test_stack_refuses(images, message):
    with pytest.raises(DataError, match=message):
        Targets.stack(images)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4))
def test_stack_keeps_every_row(counts):
    images = [example(n) for n in counts]
    targets = Targets.stack(images)
    assert targets.valid.sum(1).tolist() == counts
    for i, image in enumerate(images):
        assert torch.equal(targets.boxes[i, targets.valid[i]], image["boxes"])
        assert torch.equal(targets.labels[i, targets.valid[i]], image["labels"])


# ------------------------------------------------------------------------------------ Priors

N, T, B = 6, 3, 2
SHARED = Priors(
    torch.arange(4.0 * N).reshape(N, 4),
    torch.arange(2.0 * N).reshape(N, 2),
    (PriorLevel(1, 3, 2, (8.0, 8.0)),),
)
PER_IMAGE = SHARED.replace(boxes=torch.stack((SHARED.boxes, SHARED.boxes + 100)))


def test_priors():
    assert len(SHARED) == len(PER_IMAGE) == N
    assert SHARED.levels[0].count == N
    assert SHARED.centers[0].tolist() == [1, 2]
    assert PER_IMAGE.centers.shape == (2, N, 2)
    assert SHARED.per_image(B).shape == (B, N, 4)
    assert PER_IMAGE.per_image(B) is PER_IMAGE.boxes


def test_gather_from_shared_priors():
    index = torch.tensor([[0, 5, 5], [1, 2, 3]])
    picked = SHARED.gather(index)
    assert torch.equal(picked.boxes, SHARED.boxes[index])
    assert torch.equal(picked.strides, SHARED.strides[index])
    assert picked.levels == ()
    flat = SHARED.gather(torch.tensor([4, 0]))
    assert torch.equal(flat.boxes, SHARED.boxes[[4, 0]])


def test_gather_from_priors_per_image():
    index = torch.tensor([[0, 5, 5], [1, 2, 3]])
    picked = PER_IMAGE.gather(index)
    assert torch.equal(
        picked.boxes, torch.stack((PER_IMAGE.boxes[0][index[0]], PER_IMAGE.boxes[1][index[1]]))
    )
    assert torch.equal(picked.strides, SHARED.strides[index])


def test_gather_with_the_image_told():
    index, image = torch.tensor([4, 0, 4]), torch.tensor([1, 1, 0])
    picked = PER_IMAGE.gather(index, image)
    assert torch.equal(picked.boxes, PER_IMAGE.boxes[image, index])
    assert torch.equal(picked.strides, SHARED.strides[index])
    assert torch.equal(SHARED.gather(index, image).boxes, SHARED.boxes[index])


@pytest.mark.parametrize("priors", [SHARED, PER_IMAGE])
def test_gather_nothing(priors):
    assert priors.gather(torch.zeros(2, 0, dtype=torch.int64)).boxes.shape == (2, 0, 4)
    none = torch.zeros(0, dtype=torch.int64)
    assert priors.gather(none, none).boxes.shape == (0, 4)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 2, 2)])
def test_gather_from_priors_per_image_needs_to_know_the_image(shape):
    with pytest.raises(
        ValueError, match=r"index should be \[2, T\] for priors of 2 images, got .*; or give image"
    ):
        PER_IMAGE.gather(torch.zeros(shape, dtype=torch.int64))


def test_approx_priors():
    priors = ApproxPriors(SHARED.boxes, SHARED.strides, approxs=torch.zeros(N, 9, 4))
    assert priors.to("meta").approxs.device.type == "meta"
    assert type(priors.gather(torch.tensor([0]))) is Priors


# -------------------------------------------------------------------------------- Assignment


def test_assignment_states():
    state = torch.tensor([[1, 0, -1]], dtype=torch.int8)
    assignment = Assignment(torch.zeros(1, 3, dtype=torch.int64), state, torch.zeros(1, 3))
    assert assignment.positive.tolist() == [[True, False, False]]
    assert assignment.negative.tolist() == [[False, True, False]]


# -------------------------------------------------------------------------------- Detections


def detections(boxes, valid=None, masks=None, image_sizes=None):
    b, q = boxes.shape[:2]
    return Detections(
        boxes,
        torch.linspace(1, 0.1, q).expand(b, q),
        torch.zeros(b, q, dtype=torch.int64),
        torch.ones(b, q, dtype=torch.bool) if valid is None else valid,
        masks,
        image_sizes,
    )


def forward(boxes, geometry, size):
    """Boxes of a file, in the pixels of the image that was scaled, cut and flipped."""
    corners = boxes.reshape(-1, 2, 2) * torch.tensor(geometry.scale) - torch.tensor(geometry.origin)
    for axis in (0, 1):
        if geometry.flip[axis]:
            corners[..., axis] = size[1 - axis] - corners[..., axis].flip(-1)
    return corners.reshape(-1, 4)


fractions = st.floats(0, 1, width=32)


@given(
    st.lists(st.tuples(fractions, fractions, fractions, fractions), min_size=1, max_size=5),
    st.tuples(st.floats(0.2, 4), st.floats(0.2, 4)),
    st.tuples(st.integers(0, 40), st.integers(0, 40)),
    st.tuples(st.booleans(), st.booleans()),
)
def test_to_original_undoes_resize_cut_and_flip(corners, scale, origin, flip):
    original, size = (240, 320), (70, 90)
    points = torch.tensor(corners).reshape(-1, 2, 2) * torch.tensor([320.0, 240.0])
    boxes = torch.cat((points.amin(1), points.amax(1)), -1)
    geometry = ImageGeometry(original, scale, origin, flip)
    batch = ImageBatch.of(
        torch.zeros(2, 3, 96, 96), [size, (96, 96)], None, [geometry, ImageGeometry((500, 500))]
    )
    moved = torch.stack((forward(boxes, geometry, size), boxes))
    back = detections(moved).to_original(batch)
    torch.testing.assert_close(back.boxes[0], boxes, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(back.boxes[1], boxes)
    assert back.image_sizes.tolist() == [[240, 320], [500, 500]]


def test_to_original_clips_to_the_file():
    batch = ImageBatch.of(
        torch.zeros(1, 3, 64, 64), [(50, 60)], None, [ImageGeometry((100, 120), (0.5, 0.5))]
    )
    back = detections(box([-5, -5, 70, 70])[None]).to_original(batch)
    assert back.boxes.tolist() == [[[0, 0, 120, 100]]]


def test_to_original_leaves_padding_zero():
    geometry = [ImageGeometry((100, 120), (0.5, 0.5), (10, 10), (True, True))]
    batch = ImageBatch.of(torch.zeros(1, 3, 64, 64), None, None, geometry)
    valid = torch.tensor([[True, False]])
    back = detections(torch.zeros(1, 2, 4), valid).to_original(batch)
    assert back.boxes[0, 1].tolist() == [0, 0, 0, 0]
    assert back.boxes[0, 0].tolist() != [0, 0, 0, 0]


@pytest.mark.parametrize("flip", [(False, False), (True, False), (False, True), (True, True)])
def test_to_original_flips_the_masks_with_the_boxes(flip):
    geometry = [ImageGeometry((8, 10), flip=flip)]
    batch = ImageBatch.of(torch.zeros(1, 3, 8, 10), None, None, geometry)
    image = torch.zeros(8, 10, dtype=torch.bool)
    image[1:3, 2:6] = True
    image[3:5, 2:4] = True
    dims = [dim for dim, flipped in ((-1, flip[0]), (-2, flip[1])) if flipped]
    seen = image.flip(dims)
    y, x = seen.nonzero().T
    bounds = box([x.min(), y.min(), x.max() + 1, y.max() + 1])
    masks = seen[y.min() : y.max() + 1, x.min() : x.max() + 1].float()[None, None]
    found = detections(bounds[None], masks=masks).to_original(batch).unpad()
    assert torch.equal(found[0].masks[0], image)


def test_unpad():
    valid = torch.tensor([[True, True, False], [False, False, False]])
    found = detections(torch.rand(2, 3, 4), valid).unpad()
    assert [len(image) for image in found] == [2, 0]
    assert all(isinstance(image, ImageDetections) and image.masks is None for image in found)
    assert found[1].boxes.shape == (0, 4)
    assert found[0].scores.tolist() == pytest.approx([1.0, 0.55])


def test_unpad_pastes_masks():
    masks = torch.rand(2, 3, 5, 7)
    boxes = torch.tensor([[2.3, 1.1, 17.8, 12.4], [-3, -3, 30, 30], [5, 5, 5, 9]]).expand(2, 3, 4)
    sizes = torch.tensor([[16, 20], [12, 25]])
    valid = torch.tensor([[True, True, True], [True, False, False]])
    found = detections(boxes, valid, masks, sizes).unpad()
    assert [tuple(image.masks.shape) for image in found] == [(3, 16, 20), (1, 12, 25)]
    assert not found[0].masks[2].any()  # a box without extent
    for i, image in enumerate(found):
        for j in range(min(2, len(image))):
            assert torch.equal(
                image.masks[j], pasted_by_grid_sample(masks[i, j], boxes[i, j], sizes[i].tolist())
            )


def test_unpad_pastes_masks_into_whole_pixels_like_torchvision():
    torch.manual_seed(0)
    masks = torch.rand(1, 40, 14, 14)
    corner = torch.rand(1, 40, 2) * 50 - torch.tensor([2.0, 5.0])
    boxes = torch.cat((corner, corner + 6 + torch.rand(1, 40, 2) * 40), -1)
    boxes[0, 0] = torch.tensor([90.0, 90.0, 99.0, 99.0])  # outside
    ones = torch.ones(1, 40)
    found = Detections(boxes, ones, ones.long(), ones.bool(), masks, torch.tensor([[50, 70]]))
    (image,) = found.unpad(whole_pixels=True)
    want = paste_masks_in_image(masks[0, 1:, None], boxes[0, 1:], (50, 70))[:, 0] >= 0.5
    assert torch.equal(image.masks[1:], want)
    assert not image.masks[0].any()
    assert not torch.equal(image.masks, found.unpad()[0].masks)


def pasted_by_grid_sample(mask, bounds, size):
    x0, y0, x1, y1 = bounds.tolist()
    x = (torch.arange(size[1]) + 0.5 - x0) / (x1 - x0) * 2 - 1
    y = (torch.arange(size[0]) + 0.5 - y0) / (y1 - y0) * 2 - 1
    grid = torch.stack((x.expand(size), y[:, None].expand(size)), -1)[None]
    return F.grid_sample(mask[None, None], grid, align_corners=False)[0, 0] >= 0.5


def test_unpad_of_masks_needs_the_image_sizes():
    with pytest.raises(
        ValueError, match=r"masks are pasted into images: set image_sizes, or call to_original\(batch\)"
    ):
        detections(torch.zeros(1, 2, 4), masks=torch.zeros(1, 2, 3, 3)).unpad()


# ------------------------------------------------------------------------------------ Losses


def test_losses_sum_terms_and_not_metrics():
    losses = Losses({"cls": torch.tensor(1.5), "box": torch.tensor([2.0])}, {"accuracy": torch.tensor(90.0)})
    assert losses.total.shape == ()
    assert losses.total == 3.5
    assert sum(losses.values()) == 3.5
    assert set(losses) == {"cls", "box"}
    assert losses.metrics["accuracy"] == 90
    assert Losses({}).total == 0


def test_losses_name_the_term_that_is_no_scalar():
    with pytest.raises(ValueError, match=r"loss 'box' should be a scalar, got shape \[3\]"):
        _ = Losses({"cls": torch.tensor(1.0), "box": torch.zeros(3)}).total


def test_losses_do_not_share_the_callers_dict():
    terms, metrics = {"cls": torch.tensor(1.0)}, {}
    losses = Losses(terms, metrics)
    losses["box"] = torch.tensor(2.0)
    losses.metrics["x"] = torch.tensor(1.0)
    assert set(terms) == {"cls"}
    assert metrics == {}


@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, lambda x: pickle.loads(pickle.dumps(x))])
def test_losses_are_copied_with_their_metrics(duplicate):
    losses = duplicate(Losses({"cls": torch.tensor(1.0)}, {"accuracy": torch.tensor(0.5)}))
    assert type(losses) is Losses
    assert dict(losses) == {"cls": torch.tensor(1.0)}
    assert losses.metrics == {"accuracy": torch.tensor(0.5)}


def test_losses_are_a_tree_of_tensors():
    losses = Losses({"cls": torch.tensor(1.0), "box": torch.tensor(2.0)}, {"accuracy": torch.tensor(0.5)})
    doubled = _pytree.tree_map(lambda x: 2 * x, {"a": [losses]})["a"][0]
    assert type(doubled) is Losses
    assert doubled == {"cls": 2.0, "box": 4.0}
    assert doubled.metrics == {"accuracy": 1.0}
    assert _pytree.tree_map(lambda x: x, Losses({})) == {}


class LossModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 1), nn.Linear(3, 1)

    def forward(self, x):
        return Losses(
            {"a": self.a(x).sum(), "b": self.b(x).square().sum()}, {"count": torch.tensor(float(len(x)))}
        )


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"static_graph": True}, {"find_unused_parameters": True}])
def test_losses_through_ddp(options, tmp_path):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        torch.manual_seed(0)
        plain = LossModel()
        model = nn.parallel.DistributedDataParallel(copy.deepcopy(plain), **options)
        x = torch.randn(4, 3)
        plain(x).total.backward()
        for _ in range(2):
            model.zero_grad()
            losses = model(x)
            assert type(losses) is Losses
            assert losses.metrics["count"] == 4
            losses.total.backward()
        for own, expected in zip(model.module.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(own.grad, expected.grad)
    finally:
        torch.distributed.destroy_process_group()


# ------------------------------------------------------------------ what all structures have


def structures_of_each_kind():
    n, index = torch.zeros(1, 3, 4), torch.zeros(1, 3, dtype=torch.int64)
    flags, scores = torch.zeros(1, 3, dtype=torch.bool), torch.zeros(1, 3)
    masks = Masks.stack([torch.ones(2, 4, 4, dtype=torch.bool)], 2)
    pairs = Pairs(index, index, flags)
    return [
        ImageBatch.of(torch.zeros(1, 3, 8, 8)),
        Targets.stack([example(2, masks=torch.ones(2, 4, 4, dtype=torch.bool))]),
        masks,
        SHARED,
        ApproxPriors(SHARED.boxes, SHARED.strides, approxs=torch.zeros(N, 9, 4)),
        HeadOutput((LevelShape(2, 3),)),
        DenseOutput((LevelShape(1, 3),), torch.zeros(1, 3, 5), n, SHARED),
        Predictions(torch.zeros(1, 3, 5), n),
        pairs,
        Assignment(index, index.to(torch.int8), scores, pairs),
        Sample(flags, flags),
        Proposals(n, scores, flags),
        ImageDetections(n[0], scores[0], index[0]),
        Detections(n, scores, index, flags),
    ]


every_structure = pytest.mark.parametrize(
    "structure", structures_of_each_kind(), ids=lambda s: type(s).__name__
)


def test_none_is_forgotten():
    tested = {type(s) for s in structures_of_each_kind()} - {Masks}
    defined = {
        value
        for value in vars(structures).values()
        if isinstance(value, type)
        and issubclass(value, structures._Structure)
        and value is not structures._Structure
    }
    assert tested == defined


@every_structure
def test_frozen(structure):
    name = dataclasses.fields(structure)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(structure, name, None)


@every_structure
def test_pickle_and_deepcopy(structure):
    assert_same(pickle.loads(pickle.dumps(structure)), structure)
    assert_same(copy.deepcopy(structure), structure)


@every_structure
def test_to_moves_every_tensor(structure):
    moved = structure.to("meta")
    assert type(moved) is type(structure)
    tensors = [leaf for leaf in _pytree.tree_leaves(moved) if isinstance(leaf, torch.Tensor)]
    assert all(tensor.device.type == "meta" for tensor in tensors)
    assert_same(structure.to("cpu"), structure)


@every_structure
def test_a_tree_of_tensors(structure):
    assert_same(_pytree.tree_map(lambda leaf: leaf, structure), structure)
    expected = sum(
        isinstance(getattr(structure, f.name), torch.Tensor) for f in dataclasses.fields(structure)
    )
    leaves = _pytree.tree_leaves(structure)
    assert structure not in [leaf for leaf in leaves if not isinstance(leaf, torch.Tensor)]
    assert sum(isinstance(leaf, torch.Tensor) for leaf in leaves) >= expected


def test_to_reaches_structures_in_tuples():
    @dataclasses.dataclass(frozen=True)
    class Stages(HeadOutput):
        stages: tuple[DenseOutput, ...]

    stage = DenseOutput((), torch.zeros(1, 3, 5), torch.zeros(1, 3, 4), SHARED)
    moved = Stages((LevelShape(1, 3),), (stage, stage)).to("meta")
    assert moved.stages[1].priors.boxes.device.type == "meta"
    assert moved.levels == (LevelShape(1, 3),)
    assert isinstance(moved.levels[0], LevelShape)


def test_replace_leaves_the_original():
    changed = SHARED.replace(levels=())
    assert changed.levels == ()
    assert changed.boxes is SHARED.boxes
    assert len(SHARED.levels) == 1


class Shifter(nn.Module):
    """Takes and returns structures."""

    def forward(self, batch: ImageBatch, targets: Targets) -> tuple[Detections, Losses]:
        boxes = targets.boxes + batch.pixels.mean()
        scores = boxes.sum(-1).sigmoid() * targets.valid
        found = Detections(boxes, scores, targets.labels, targets.valid)
        return found.to_original(batch), Losses({"box": boxes.abs().mean()}, {"n": targets.valid.sum()})


@pytest.mark.slow
def test_export_of_a_module_that_takes_and_returns_structures():
    geometry = [ImageGeometry((16, 16), (0.5, 0.5), flip=(True, False))] * 2
    batch = ImageBatch.of(torch.rand(2, 3, 8, 8), None, None, geometry)
    targets = Targets.stack([example(2), example(1)])
    model = Shifter()
    exported = torch.export.export(model, (batch, targets)).module()
    found, losses = exported(batch, targets)
    expected, expected_losses = model(batch, targets)
    assert_same(found, expected)
    assert type(losses) is Losses
    assert losses == expected_losses
    assert losses.metrics == expected_losses.metrics


@settings(deadline=None, max_examples=5)
@given(st.integers(1, 3))
def test_structures_in_a_compiled_graph(count):
    torch._dynamo.reset()
    targets = Targets.stack([example(2)] * count)
    compiled = torch.compile(
        lambda t: t.replace(boxes=t.boxes * t.matchable[..., None]), backend="eager", fullgraph=True
    )
    assert_same(compiled(targets), targets)


def test_padded_targets_have_the_next_power_of_two_of_rows():
    objects = [{"boxes": torch.rand(n, 4), "labels": torch.arange(n)} for n in (5, 0)]
    for image in objects:
        image["masks"] = torch.ones(len(image["boxes"]), 4, 6, dtype=torch.bool)
    targets = Targets.stack(objects)
    padded = targets.padded()
    assert padded.boxes.shape == (2, 8, 4)
    assert padded.valid.sum(1).tolist() == [5, 0]
    assert torch.equal(padded.boxes[:, :5], targets.boxes)
    assert not padded.boxes[:, 5:].any()
    assert torch.equal(padded.masks.areas()[:, :5], targets.masks.areas())
    assert not padded.masks.areas()[:, 5:].any()
    assert targets.padded(5).boxes.shape == padded.padded(8).boxes[:, :5].shape


def test_padded_targets_do_not_shrink():
    with pytest.raises(ValueError, match=r"targets have 4 rows, which do not fit into to=3"):
        Targets.stack([{"boxes": torch.rand(4, 4), "labels": torch.arange(4)}]).padded(3)
