"""The inspection on real data, in three formats."""

from detcore_data import CocoDataset, KittiDataset, VocDataset
from detcore_data.inspection import Options, inspect_overlap, inspect_split

OPTIONS = Options(limit=20)


def test_coco_and_voc_say_the_same_of_the_same_data(real_data):
    bccd = real_data("bccd")
    coco = CocoDataset(root=bccd, annotations="instances_train.json", images="images")
    voc = VocDataset(
        root=bccd, annotations="annotations", images="images", split="train.txt", difficult="keep"
    )
    first, second = (inspect_split("train", dataset, OPTIONS) for dataset in (coco, voc))
    (flat,) = (f for f in second.findings if f.check == "degenerate-box")  # the JSON was made without them
    assert second.facts["objects"] == first.facts["objects"] + flat.count
    for key in ("images", "ignored", "empty_images", "image_width", "commonest_sizes"):
        assert first.facts[key] == second.facts[key], key
    images = [{c.name: c.images for c in split.classes} for split in (first, second)]
    assert images[0].keys() == images[1].keys()
    assert not [f for f in (*first.findings, *second.findings) if f.severity == "error"]


def test_the_splits_do_not_overlap(real_data):
    bccd = real_data("bccd")
    train, val = (
        inspect_split(
            name,
            CocoDataset(root=bccd, annotations=f"instances_{name}.json", images="images"),
            Options(limit=0),
        )
        for name in ("train", "val")
    )
    assert inspect_overlap(train, val) == []
    assert [f.count for f in inspect_overlap(train, train)] == [len(train.records)]


def test_kitti(real_data):
    dataset = KittiDataset(root=real_data("kitti_tiny") / "training", annotations="label_2", images="image_2")
    split = inspect_split("train", dataset, OPTIONS)
    assert split.facts["ignored_for_every_class"] == int(dataset.records.annotations.any_class.sum()) > 0
    assert split.facts["image_width"]["min"] > 1000
    assert not [f for f in split.findings if f.severity == "error"]
