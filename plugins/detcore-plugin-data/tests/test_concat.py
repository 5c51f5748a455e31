import copy

import pytest
import torch
from detcore_data import (
    CocoDataset,
    CocoMetric,
    ConcatDataset,
    DatasetFacts,
    RandomFlip,
    RepeatDataset,
    Resize,
    seeded,
    with_transforms,
)
from detcore_data.ground_truth import records_of
from PIL import Image

from detcore.errors import ConfigError, DataError
from detcore.serialize import build, dump
from detcore.structures import ImageDetections


def truth(item):
    """The ground truth of an item as detections."""
    kept = ~item["ignore"]
    count = int(kept.sum())
    return ImageDetections(
        item["boxes"][kept].as_subclass(torch.Tensor), torch.ones(count), item["labels"][kept]
    )


@pytest.fixture
def two(coco, tmp_path):
    """Two COCO files with the same image ids; the second has other category ids."""
    first = CocoDataset.spec(**coco.write())
    second = type(coco)(_folder(tmp_path / "second"))
    for row in second.data["categories"]:
        row["id"] += 100
    second.data["annotations"] = [second.box(1, 8, 107, [2, 3, 9, 8]), second.box(2, 5, 190, [1, 1, 20, 20])]
    return first, CocoDataset.spec(**second.write())


def _folder(path):
    path.mkdir()
    return path


def test_items_are_those_of_the_datasets_in_order(two):
    first, second = (spec.build() for spec in two)
    both = ConcatDataset(datasets=two)
    assert len(both) == len(first) + len(second) == 6
    for i, item in enumerate([*first, *second]):
        assert torch.equal(both[i]["image"], item["image"])
        assert torch.equal(both[i]["boxes"], item["boxes"])
        assert torch.equal(both[i]["labels"], item["labels"])
        assert both[i]["file"] == item["file"]
    assert torch.equal(both[-1]["image"], both[5]["image"])
    with pytest.raises(IndexError):
        both[6]


def test_each_image_has_an_id_of_its_own_and_records_agree_with_items(two):
    both = ConcatDataset(datasets=two)
    ids = [item["image_id"] for item in both]
    assert ids[:3] == [5, 3, 8]
    assert len(set(ids)) == 6
    assert both.records.image_ids.tolist() == ids
    records = records_of(both)
    for i, item in enumerate(both):
        assert records[i].file == item["file"]
        assert records.annotations.labels[records[i].rows].tolist() == item["labels"].tolist()


def test_evaluation_on_several_files(two):
    both = ConcatDataset(datasets=two)
    metric = CocoMetric()
    metric.start(both)
    for item in both:
        metric.update([item["image_id"]], [truth(item)])
    assert metric.compute()["AP"] == pytest.approx(1.0)
    metric.start(both)
    for item in both:
        found = (
            truth(item)
            if item["image_id"] < 9
            else ImageDetections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())
        )
        metric.update([item["image_id"]], [found])
    assert metric.compute()["AP"] < 0.9  # the second file's objects are missed


def test_masks_of_several_files(coco, two):
    coco.data["annotations"] = [
        coco.box(1, 3, 7, [10, 5, 10, 10], segmentation=[[10, 5, 20, 5, 20, 15, 10, 15]]),
        coco.box(2, 5, 3, [0, 0, 4, 4], segmentation=[[0, 0, 4, 0, 4, 4], [0, 0, 0, 4, 4, 4]]),
    ]
    spec = CocoDataset.spec(**coco.write(), with_masks=True)
    both = ConcatDataset(datasets=(spec, spec))
    records = both.records
    for i, item in enumerate(both):
        decoded = records.segmentations.decode(
            records.annotations.select(records[i].rows).segments.tolist(), (30, 40), "x"
        )
        assert torch.equal(decoded, item["masks"].as_subclass(torch.Tensor))
    with pytest.raises(DataError, match=r"datasets\[1\] has no masks, but datasets\[0\] has"):
        ConcatDataset(datasets=(spec, two[0]))


def test_classes_that_differ_are_an_error_unless_they_are_named(coco, two, tmp_path):
    other = type(coco)(_folder(tmp_path / "other"))
    other.data["categories"] = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "emu"}]
    other.data["annotations"] = [other.box(1, 3, 1, [10, 5, 20, 10])]
    third = CocoDataset.spec(**other.write())
    with pytest.raises(
        DataError,
        match=r"datasets\[1\] lacks owl; datasets\[1\] has also emu.*give those to use, in order, as classes",
    ):
        ConcatDataset(datasets=(two[0], third))
    both = ConcatDataset(datasets=(two[0], third), classes=("dog", "cat"))
    assert both.class_map.names == ("dog", "cat")
    assert both[4]["labels"].tolist() == [0]
    other.data["categories"] = [{"id": i, "name": name} for i, name in enumerate(("owl", "dog", "cat"))]
    third = CocoDataset.spec(**other.write())
    with pytest.raises(DataError, match="ordered cat, dog, owl and owl, dog, cat"):
        ConcatDataset(datasets=(two[0], third))


def test_root_and_classes_reach_the_datasets(coco, tmp_path):
    coco.write()
    part = {"type": "CocoDataset", "annotations": "instances.json", "images": "images"}
    config = {
        "type": "ConcatDataset",
        "root": str(tmp_path),
        "classes": ["owl", "dog"],
        "datasets": [part, {"type": "RepeatDataset", "times": 2, "dataset": part}],
        "transforms": [{"type": "Resize", "scale": [20, 16]}],
    }
    dataset = build(config, kind="datasets")
    assert len(dataset) == 9
    assert dataset.class_map.names == ("owl", "dog")
    assert dataset[0]["image"].shape[1:] == (15, 20)
    assert len(dataset.records) == 6  # every image of every file once
    again = build(dump(dataset), kind="datasets")
    assert [item["image_id"] for item in again] == [item["image_id"] for item in dataset]


def test_no_dataset_is_an_error():
    with pytest.raises(ConfigError, match="datasets"):
        ConcatDataset(datasets=())


def test_datasets_without_records(random_dataset, two):
    both = ConcatDataset(datasets=(random_dataset, random_dataset))
    assert both.records is None
    assert [item["image_id"] for item in both] == [*range(7), *range(7)]
    with pytest.raises(DataError, match="two images have the id 0"):
        CocoMetric().start(both)


def test_a_repeated_dataset_draws_anew_and_is_evaluated_once(two):
    spec = two[0].replace(transforms=(RandomFlip(prob=0.5),))
    dataset = RepeatDataset(dataset=spec, times=6)
    assert len(dataset) == 18
    items = seeded(dataset, seed=0)
    flips = {items[1 + 3 * k]["geometry"].flip[0] for k in range(6)}
    assert flips == {False, True}
    metric = CocoMetric()
    metric.start(dataset)
    plain = RepeatDataset(dataset=two[0], times=2)
    for item in plain:
        metric.update([item["image_id"]], [truth(item)])
    assert metric.compute()["AP"] == pytest.approx(1.0)


def repeated(dataset):
    return RepeatDataset(dataset=dataset, times=2)


def mirrored(dataset):
    return ConcatDataset(datasets=(dataset,), transforms=(RandomFlip(prob=1.0),))


@pytest.mark.parametrize("wrap", [lambda dataset: dataset, repeated, mirrored])
def test_other_transforms_leave_the_dataset_as_it_is(two, wrap):
    dataset = wrap(two[0].replace(transforms=(Resize(scale=(20, 15)),)).build())
    other = with_transforms(dataset, (Resize(scale=(80, 60)),))
    assert type(other) is type(dataset)
    assert len(other) == len(dataset)
    assert other[0]["image"].shape[1:] == (60, 80)
    assert not any(other[0]["geometry"].flip)
    assert dataset[0]["image"].shape[1:] == (15, 20)
    assert other.records is dataset.records


def test_a_dataset_that_cannot_change_its_transforms(random_dataset):
    with pytest.raises(DataError, match=r"RandomDataset cannot change its transforms; give it a method"):
        with_transforms(random_dataset, ())


def test_facts_are_those_of_the_items(two, random_dataset):
    nested = ConcatDataset(datasets=(two[1], RepeatDataset(dataset=ConcatDataset(datasets=two), times=2)))
    for dataset in (two[0].build(), nested, random_dataset):
        facts = DatasetFacts(dataset)
        items = [dataset[i] for i in range(len(dataset))]
        assert len(facts) == len(items)
        assert facts.sizes.tolist() == [list(item["image"].shape[1:]) for item in items]
        expected = {
            (i, int(label)) for i, item in enumerate(items) for label in item["labels"][~item["ignore"]]
        }
        assert {tuple(pair) for pair in facts.present.tolist()} == expected
        assert len(facts.present) == len(expected)


def test_facts_do_not_disturb_random_numbers(random_dataset):
    before = torch.get_rng_state()
    _ = DatasetFacts(random_dataset).sizes
    assert torch.equal(torch.get_rng_state(), before)


def test_sizes_that_annotations_do_not_tell_are_in_the_files(coco):
    dataset = CocoDataset(**coco.write())
    rotated = Image.new("RGB", (40, 30))
    exif = rotated.getexif()
    exif[0x0112] = 6  # a quarter turn
    rotated.save(coco.images / "3.png", exif=exif)
    object.__setattr__(dataset.records, "sizes", torch.zeros_like(dataset.records.sizes))
    assert DatasetFacts(dataset).sizes.tolist() == [[30, 40], [40, 30], [30, 40]]
    (coco.images / "5.png").unlink()
    with pytest.raises(DataError, match=r"5\.png: the image does not exist"):
        _ = DatasetFacts(copy.copy(dataset)).sizes
    (coco.images / "5.png").write_text("no image")
    with pytest.raises(DataError, match=r"5\.png: not an image"):
        _ = DatasetFacts(dataset).sizes
