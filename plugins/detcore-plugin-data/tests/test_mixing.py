from __future__ import annotations

import logging

import pytest
import torch
from detcore_data import (
    CocoDataset,
    MixTransform,
    RandomFlip,
    Resize,
    ShapesDataset,
    apply_transforms,
    collate,
    seeded,
)
from detcore_data.inspection.seen import seen_objects
from torch.utils.data import DataLoader
from torchvision import tv_tensors

from detcore.errors import DataError
from detcore.interfaces import Transform


class Note(Transform):
    """Writes its name into the file's name: what an example went through can be read there."""

    def __init__(self, *, name: str) -> None:
        self.name = name

    def __call__(self, example):
        return {**example, "file": f"{example['file']}>{self.name}"}


class Mix(MixTransform):
    """Notes the others' names; draws one, or none."""

    def __init__(self, *, name: str = "mix", count: int = 1, others_mixed: bool = False) -> None:
        self.name, self.count, self.others_mixed = name, count, others_mixed

    def others(self, length):
        return tuple(torch.randint(length, (self.count,)).tolist())

    def mix(self, example, others):
        inner = "+".join(other["file"] for other in others)
        return {**example, "file": f"{example['file']}>{self.name}({inner})"}


class Blend(MixTransform):
    """The mean of two images of one size, with the objects of both."""

    def others(self, length):
        return (int(torch.randint(length, ())),)

    def mix(self, example, others):
        (other,) = others
        image = (example["image"].float() + other["image"].float()) / 2
        boxes = torch.cat([one["boxes"].as_subclass(torch.Tensor) for one in (example, other)])
        return {
            **example,
            "image": tv_tensors.Image(image.to(torch.uint8)),
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=example["boxes"].canvas_size),
            "labels": torch.cat((example["labels"], other["labels"])),
            "ignore": torch.cat((example["ignore"], other["ignore"])),
        }


def run(example, transforms, index=0, length=1):
    return apply_transforms(lambda i: example(image_id=i), index, length, transforms)["file"]


def test_others_come_through_what_precedes_the_first_mixing_one(example):
    steps = [Note(name="a"), Mix(name="m"), Note(name="b"), Mix(name="n"), Note(name="c")]
    assert run(example, steps) == "0.png>a>m(0.png>a)>b>n(0.png>a)>c"


def test_others_mixed_come_through_all_that_precedes(example):
    steps = [Note(name="a"), Mix(name="m"), Note(name="b"), Mix(name="n", others_mixed=True)]
    assert run(example, steps) == "0.png>a>m(0.png>a)>b>n(0.png>a>m(0.png>a)>b)"


def test_no_others_leave_it_as_it_is(example):
    assert run(example, [Mix(count=0), Note(name="a")]) == "0.png>a"


def test_others_are_spread_over_the_dataset(example):
    torch.manual_seed(0)
    found = run(example, [Mix(count=200)], index=3, length=5)
    assert all(f"{i}.png" in found for i in range(5))
    assert found.startswith("3.png>mix(")


def test_without_a_dataset_it_mixes_with_itself_and_says_so_once(example, caplog):
    class Other(Mix):
        pass

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert Other(count=2)(example())["file"] == "7.png>mix(7.png+7.png)"
    assert [record.getMessage() for record in caplog.records] == [
        "Other was called without a dataset, and mixes the example with itself; "
        "a dataset should use detcore_data.apply_transforms"
    ]
    assert Other(count=0)(example())["file"] == "7.png"


class Mixing(Blend):
    """Blends images of any size."""

    def mix(self, example, others):
        size = list(example["image"].shape[-2:])
        return super().mix(example, [Resize(scale=(size[1], size[0]), keep_ratio=False)(others[0])])


@pytest.mark.reliability(
    area="determinism",
    fault="transforms that mix images, read by two workers in another order",
    outcome="every item equals that of one process, bit for bit, and another epoch gives others",
)
def test_seed_epoch_and_index_decide_in_any_worker(tmp_path, record_property):
    steps = (RandomFlip(prob=0.5), Mixing(), Resize(scale=(40, 40)), Mixing())
    data = seeded(ShapesDataset(root=tmp_path, length=6, size=(48, 48), transforms=steps), 5)
    alone = [data[i] for i in reversed(range(6))][::-1]
    loader = DataLoader(data, batch_size=1, num_workers=2, collate_fn=collate)
    record_property("tried", len(alone))
    for item, batch in zip(alone, loader, strict=True):
        assert torch.equal(item["image"], batch.images[0])
        assert torch.equal(item["boxes"], batch.targets.boxes[0, : len(item["boxes"])])
    data.set_epoch(1)
    assert not all(torch.equal(one["image"], data[i]["image"]) for i, one in enumerate(alone))


def test_every_dataset_mixes(coco):
    data = CocoDataset(**coco.write(), transforms=(Blend(),))
    torch.manual_seed(0)
    assert {len(data[0]["boxes"]) for _ in range(30)} == {1, 2, 3}  # its own, and those of any other image
    with pytest.raises(IndexError):
        data[3]


@pytest.mark.reliability(
    area="data",
    fault="an image that is mixed into another one is damaged",
    outcome="an error that names the damaged file, not the item's own",
)
def test_an_image_that_is_mixed_in_and_damaged_is_named(coco):
    data = CocoDataset(**coco.write(), transforms=(Blend(),))
    (coco.images / "8.png").write_bytes(b"no image")
    torch.manual_seed(0)
    with pytest.raises(DataError, match=r"8\.png"):
        _ = [data[0] for _ in range(30)]


def test_inspection_sees_the_objects_of_mixed_images(tmp_path):
    steps = (Mixing(),)
    data = ShapesDataset(root=tmp_path, length=6, size=(48, 48), empty=0.0, transforms=steps)
    sizes = data.records.sizes.clone()
    for seen, index in zip(seen_objects(data.records, sizes, steps, range(6), seed=3), range(6), strict=True):
        item = seeded(data, 3)[index]
        torch.testing.assert_close(seen.boxes, item["boxes"].as_subclass(torch.Tensor))
        assert torch.equal(seen.labels, item["labels"])
    sizes[1:] = 0  # never opened: they count as empty where they are mixed in
    (seen,) = seen_objects(data.records, sizes, steps, range(6), seed=3)
    assert seen.image == 0
    rows = data.records[0].rows
    assert len(seen.boxes) in (rows.stop - rows.start, 2 * (rows.stop - rows.start))
