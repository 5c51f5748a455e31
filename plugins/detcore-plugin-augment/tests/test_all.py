"""What holds for every transform of the package."""

from __future__ import annotations

import copy

import pytest
import torch
from detcore_augment import (
    CopyPaste,
    Expand,
    FilterAnnotations,
    MinIoURandomCrop,
    MixUp,
    Mosaic,
    RandomAffine,
    RandomCrop,
)
from detcore_data import MixTransform, ShapesDataset, apply_transforms, collate, seeded
from detcore_data.inspection.seen import seen_objects
from torch.utils.data import DataLoader
from torchvision import tv_tensors

from detcore import build, dump
from detcore.structures import ImageGeometry

SPECS = {
    "mosaic": Mosaic.spec(img_scale=(32, 24)),
    "mosaic, dropping": Mosaic.spec(img_scale=(40, 40), leftover="drop", prob=0.7),
    "mix up": MixUp.spec(img_scale=(32, 24)),
    "mix up, beta": MixUp.spec(img_scale=(48, 24), alpha=1.5, prob=0.8, leftover="drop"),
    "copy and paste": CopyPaste.spec(bbox_occluded_thr=2, mask_occluded_thr=10),
    "copy and paste all": CopyPaste.spec(selected=False, leftover="drop"),
    "affine": RandomAffine.spec(max_rotate_degree=40, max_shear_degree=10),
    "affine, corner": RandomAffine.spec(around="corner", leftover="drop"),
    "scale and move": RandomAffine.spec(max_rotate_degree=0, max_shear_degree=0, border=(5, 3)),
    "crop": RandomCrop.spec(crop_size=(20, 16), allow_negative_crop=True),
    "crop to an object": RandomCrop.spec(crop_size=(5, 4), leftover="drop"),
    "crop between": RandomCrop.spec(crop_size=(8, 20), crop_type="absolute_range", recompute_bbox=True),
    "crop a part": RandomCrop.spec(crop_size=(0.4, 0.6), crop_type="relative"),
    "crop at least a part": RandomCrop.spec(crop_size=(0.3, 0.3), crop_type="relative_range"),
    "crop by overlap": MinIoURandomCrop.spec(),
    "expand": Expand.spec(prob=0.8),
    "filter": FilterAnnotations.spec(min_gt_bbox_wh=(7, 7), max_aspect_ratio=1.9),
    "filter to ignored": FilterAnnotations.spec(min_gt_mask_area=70, leftover="ignore"),
}
KEEPS_THE_WAY = ("mix up", "copy", "scale", "crop", "expand", "filter")
names = pytest.mark.parametrize("name", SPECS)


def run(name, examples, seed=0):
    """The first of some examples, which are a dataset."""
    torch.manual_seed(seed)
    return apply_transforms(lambda i: copy.deepcopy(examples[i]), 0, len(examples), [build(SPECS[name])])


def check(item):
    size = tuple(item["image"].shape[-2:])
    boxes = item["boxes"].as_subclass(torch.Tensor)
    n = len(boxes)
    assert type(item["image"]) is tv_tensors.Image
    assert item["image"].dtype == torch.uint8
    assert type(item["boxes"]) is tv_tensors.BoundingBoxes
    assert item["boxes"].canvas_size == size
    assert boxes.dtype == torch.float32
    assert boxes.shape == (n, 4)
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([size[1], size[0]] * 2)).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert item["labels"].shape == item["ignore"].shape == (n,)
    assert (item["labels"].dtype, item["ignore"].dtype) == (torch.int64, torch.bool)
    if "masks" in item:
        assert type(item["masks"]) is tv_tensors.Mask
        assert item["masks"].dtype == torch.bool
        assert tuple(item["masks"].shape) == (n, *size)


@names
@pytest.mark.parametrize("masks", [True, False])
def test_results_are_examples(name, masks, picture):
    if "paste" in name and not masks:
        pytest.skip("needs masks")
    examples = [
        picture(masks=masks),
        picture((30, 20), ((3, 3, 9, 9),), masks=masks, ignore=(0,)),
        picture((9, 9), (), masks=masks),
    ]
    for seed in range(12):
        item = run(name, examples, seed)
        check(item)
        assert ("masks" in item) == masks
        assert (item["file"], item["image_id"]) == ("7.png", 7)


@names
def test_the_arguments_stay_as_they_are(name, picture):
    transform = build(SPECS[name])
    examples = [picture(ignore=(1,)) for _ in range(4)]
    before = copy.deepcopy(examples)
    for seed in range(6):
        torch.manual_seed(seed)
        if isinstance(transform, MixTransform):
            others = transform.others(4)
            if others:
                transform.mix(examples[0], [examples[i] for i in others])
        else:
            transform(examples[0])
    for one, other in zip(examples, before, strict=True):
        for key, value in other.items():
            assert torch.equal(one[key], value) if isinstance(value, torch.Tensor) else one[key] == value


@names
def test_images_without_objects_stay_empty(name, picture):
    item = run(name, [picture((20, 30), ())] * 3)
    check(item)
    assert len(item["boxes"]) == 0
    assert item["masks"].shape[0] == 0


@pytest.mark.reliability(
    area="data",
    fault="an image of one pixel, with an object and without, is augmented",
    outcome="a well-formed example",
)
@names
def test_an_image_of_one_pixel(name, picture):
    for boxes in ((), ((0, 0, 1, 1),)):
        for seed in range(4):
            check(run(name, [picture((1, 1), boxes)], seed))


@names
def test_a_huge_image(name, picture):
    big = picture((1500, 2000), ((100, 200, 1900, 1300),), masks=False)
    other = picture((40, 30), ((3, 3, 9, 9),), masks=False)
    if "paste" in name:
        big, other = picture((1500, 2000), ((100, 200, 1900, 1300),)), picture((40, 30), ((3, 3, 9, 9),))
    if name == "expand":
        big = other
    check(run(name, [big, other]))


@names
def test_dump_and_build(name):
    made = build(SPECS[name])
    assert dump(build(dump(made))) == dump(made)


@names
def test_the_way_back(name, picture):
    """Either it leads back to the file, or the picture is its own original."""
    for seed in range(8):
        item = run(name, [picture(labels=(0, 1, 2))] * 2, seed)
        geometry, size = item["geometry"], tuple(item["image"].shape[-2:])
        if not name.startswith(KEEPS_THE_WAY):
            assert geometry in (ImageGeometry(size), ImageGeometry((24, 32)))
            continue
        assert geometry.original_size == (24, 32)
        x, y = geometry.origin
        seen = [[(0 + x) / geometry.scale[0], (0 + y) / geometry.scale[1], (size[1] + x) / geometry.scale[0],
                 (size[0] + y) / geometry.scale[1]]]  # fmt: skip
        low, high = torch.tensor(seen)[:, :2], torch.tensor(seen)[:, 2:]
        first = {}
        for box, label in zip(item["boxes"].as_subclass(torch.Tensor), item["labels"].tolist(), strict=True):
            first.setdefault(label, box)
        if name.startswith(("copy", "crop between")):
            continue  # boxes follow what can be seen
        for label, box in first.items():
            original = picture()["boxes"].as_subclass(torch.Tensor)[label]
            corners = (box.reshape(2, 2) + torch.tensor([x, y])) / torch.tensor(geometry.scale)
            expected = torch.stack((original[:2].maximum(low[0]), original[2:].minimum(high[0])))
            torch.testing.assert_close(corners, expected, atol=1e-3, rtol=0)


@pytest.mark.reliability(
    area="determinism",
    fault="Mosaic, affine map, MixUp and copy-paste read by two workers, in another order, and again",
    outcome="every item equals that of one process, bit for bit; another epoch gives others",
)
def test_seed_epoch_and_index_decide(tmp_path, record_property):
    steps = (
        Mosaic(img_scale=(48, 48)),
        RandomAffine(border=(-24, -24)),
        MixUp(img_scale=(48, 48), others_mixed=True),
        CopyPaste(),
        RandomCrop(crop_size=(0.5, 0.5), crop_type="relative_range"),
    )
    data = seeded(ShapesDataset(root=tmp_path, length=8, size=(48, 64), transforms=steps, with_masks=True), 3)
    alone = [data[i] for i in reversed(range(8))][::-1]
    loader = DataLoader(data, batch_size=1, num_workers=2, collate_fn=collate)
    for item, batch in zip(alone, loader, strict=True):
        assert torch.equal(item["image"], batch.images[0])
        assert torch.equal(item["boxes"], batch.targets.boxes[0, : len(item["boxes"])])
        assert torch.equal(item["ignore"], batch.targets.ignore[0, : len(item["boxes"])])
    record_property("tried", len(alone))
    data.set_epoch(1)
    assert not any(torch.equal(one["image"], data[i]["image"]) for i, one in enumerate(alone))


@names
def test_without_pixels(name, picture):
    """On the meta device a picture has a size only: what becomes of objects is known all the same."""
    whole, bare = ([picture(image_id=i) for i in range(3)] for _ in range(2))
    for one in bare:
        one["image"] = tv_tensors.Image(torch.empty(one["image"].shape, dtype=torch.uint8, device="meta"))
    transform = build(SPECS[name])
    for seed in range(4):
        found = []
        for examples in (whole, bare):
            torch.manual_seed(seed)
            found.append(apply_transforms(examples.__getitem__, 0, 3, [transform]))
        assert found[1]["image"].is_meta
        assert found[1]["image"].shape == found[0]["image"].shape
        for key in ("boxes", "labels", "ignore", "masks"):
            assert torch.equal(found[0][key], found[1][key])


def test_inspection_sees_through_them(tmp_path):
    """The doctor's boxes, made without pixels, are those of the first epoch."""
    steps = (
        Mosaic(img_scale=(48, 48)),
        RandomAffine(border=(-24, -24)),
        MixUp(img_scale=(48, 48)),
        CopyPaste(),
    )
    data = ShapesDataset(root=tmp_path, length=5, size=(48, 64), transforms=steps, with_masks=True)
    trained = seeded(data, 4)
    for found in seen_objects(data.records, data.records.sizes, steps, range(5), seed=4):
        item = trained[found.image]
        torch.testing.assert_close(found.boxes, item["boxes"].as_subclass(torch.Tensor))
        assert torch.equal(found.labels, item["labels"])
