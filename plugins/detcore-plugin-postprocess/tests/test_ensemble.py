"""Several detectors as one, and detectors with transforms before them."""

import pytest
import torch
from detcore_postprocess import (
    AugmentedDetector,
    EnsembleDetector,
    TiledDetector,
    TransformedDetector,
    WeightedBoxesFusion,
    raw_batch,
    raw_images,
)
from torchvision.transforms.v2 import functional as F

from detcore import build, dump
from detcore.errors import ConfigError, DataError
from detcore.interfaces import Transform
from detcore.structures import ClassMap, ImageBatch, ImageGeometry, Targets

NAMES = ("cat", "dog", "bird")


@pytest.fixture
def image(painted):
    return painted((40, 60), [(3, 5, 12, 15, 0), (20, 10, 50, 30, 1), (30, 32, 40, 40, 2)])


def test_each_member_prepares_the_image_itself(squares, image):
    members = [squares(num_classes=3, zoom=zoom) for zoom in (1, 3)]
    model = EnsembleDetector(detectors=members, max_per_img=8).eval()
    (found,) = model([image]).unpad()
    (alone,) = members[0]([image]).unpad()
    assert [member.sizes[0] for member in members] == [(1, 3, 40, 60), (1, 3, 120, 180)]
    assert found.boxes.tolist() == alone.boxes.tolist()
    assert found.labels.tolist() == alone.labels.tolist() == [2, 1, 0]


@pytest.mark.reliability(
    area="test-time",
    fault="members of an ensemble whose classes have another order",
    outcome="labels are brought to the order of the first member, before and after saving",
)
def test_labels_are_brought_to_the_order_of_the_first(squares, image):
    first = squares(num_classes=3, names=NAMES)
    second = squares(num_classes=3, names=("bird", "cat", "dog"))
    model = EnsembleDetector(
        detectors=(first, second), merger=WeightedBoxesFusion.spec(), max_per_img=8
    ).eval()
    assert model.class_map.names == NAMES
    assert model.orders.tolist() == [[0, 1, 2], [2, 0, 1]]
    (found,) = model([image]).unpad()
    # the second calls what the first calls a cat a bird, so that each object is there under two names
    assert sorted(zip(found.boxes[:, 0].tolist(), found.labels.tolist(), strict=True)) == [
        (3.0, 0), (3.0, 2), (20.0, 0), (20.0, 1), (30.0, 1), (30.0, 2)
    ]  # fmt: skip
    model.class_map = ClassMap(("Katze", "Hund", "Vogel"), (7, 8, 9))
    assert second.class_map.names == ("Vogel", "Katze", "Hund")
    assert second.class_map.ids == (9, 7, 8)
    with pytest.raises(DataError, match="2 classes, the detectors have 3"):
        model.class_map = ClassMap(("a", "b"))


@pytest.mark.reliability(
    area="test-time",
    fault="members of an ensemble with different classes",
    outcome="refused; the message names the classes that only one has",
)
@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("cat", "dog", "horse"), "detectors[1] lacks bird and has horse, unlike detectors[0]"),
        (("cat", "dog"), "detectors[1] lacks bird, unlike detectors[0], whose classes are cat, dog, bird"),
    ],
)
def test_other_classes_are_refused(squares, names, said):
    members = (squares(num_classes=3, names=NAMES), squares(num_classes=len(names), names=names))
    with pytest.raises(ConfigError) as error:
        EnsembleDetector(detectors=members)
    assert said in str(error.value)


def test_weights(squares, image):
    members = [squares(num_classes=3), squares(num_classes=3, doubt=0.001)]
    fused = EnsembleDetector(detectors=members, merger=WeightedBoxesFusion(), weights=(1.0, 3.0)).eval()
    score = fused([image]).scores[0, 0].item()
    assert score == pytest.approx((3 / 256 + 3 * (3 / 256 - 0.001)) / 4)
    with pytest.raises(ConfigError, match="1 numbers for 2 detectors; give one for each"):
        EnsembleDetector(detectors=members, weights=(1.0,))
    with pytest.raises(ConfigError, match="detectors"):
        EnsembleDetector(detectors=())


def test_training_trains_all_members_with_their_own_labels(squares, image):
    members = (
        squares(num_classes=3, names=NAMES),
        squares(num_classes=3, names=("dog", "bird", "cat")),
    )
    model = EnsembleDetector(detectors=members).train()
    targets = [{"boxes": torch.tensor([[3.0, 5, 12, 15]]), "labels": torch.tensor([1])}]
    losses = model([image], targets)
    assert set(losses) == {"0.loss", "1.loss"}
    assert [losses.metrics[f"{i}.labels"].item() for i in range(2)] == [1, 0]  # a dog
    losses.total.backward()
    assert all(member.weight.grad is not None for member in members)
    batch = model.preprocess([image])
    assert model.eval().loss(batch, Targets.stack(targets))["1.loss"] == losses["1.loss"]
    assert len(model.features(batch)) == 2


def test_members_are_told_of_progress(squares):
    members, heard = (squares(num_classes=1), squares(num_classes=1)), []
    for index, member in enumerate(members):
        member.on_progress = lambda *progress, index=index: heard.append((index, *progress))
    EnsembleDetector(detectors=members).on_progress(3, 4)
    assert heard == [(0, 3, 4), (1, 3, 4)]


def test_round_trip(squares):
    members = (squares(num_classes=3), squares(num_classes=3, zoom=2))
    model = EnsembleDetector(detectors=members, weights=(1.0, 2.0), merger=WeightedBoxesFusion(iou_thr=0.6))
    objects = {}
    again = build(dump(model, objects=objects), objects=objects)
    assert (again.weights, again.merger.iou_thr, len(again.detectors)) == ((1.0, 2.0), 0.6, 2)
    assert set(again.state_dict()) == {"orders", "detectors.0.weight", "detectors.1.weight"}


def test_detectors_compose(squares, painted):
    """An ensemble of an augmented and a tiled detector, itself in tiles."""
    image = painted((90, 100), [(3, 5, 12, 15, 0), (41, 40, 49, 52, 1)])
    members = (
        AugmentedDetector(detector=squares(num_classes=2)),
        TiledDetector(detector=squares(num_classes=2, zoom=2), tile=40, overlap=0.5, full_image=False),
    )
    model = TiledDetector(
        detector=EnsembleDetector(detectors=members), tile=64, overlap=0.4, full_image=False
    ).eval()
    assert model([image]).unpad()[0].boxes.tolist() == [[41, 40, 49, 52], [3, 5, 12, 15]]


# -------------------------------------------------------------------------------------------------- transforms


class Double(Transform):
    """Twice the size, nearest."""

    def __call__(self, example):
        height, width = example["image"].shape[-2:]
        image = F.resize(example["image"], [2 * height, 2 * width], F.InterpolationMode.NEAREST)
        way = example["geometry"]
        twice = [tuple(2 * value for value in pair) for pair in (way.scale, way.origin)]
        geometry = ImageGeometry(way.original_size, *twice)
        return {**example, "image": image, "geometry": geometry}


def test_transforms_come_first_in_evaluation_only(squares, image):
    model = TransformedDetector(detector=squares(num_classes=3), transforms=(Double(), Double())).eval()
    (found,) = model([image]).to_original(model.preprocess([image])).unpad()
    assert found.boxes.tolist() == [[30, 32, 40, 40], [20, 10, 50, 30], [3, 5, 12, 15]]
    assert model.detector.sizes == [(1, 3, 160, 240)]
    model.train()
    assert model.preprocess([image]).pixels.shape == (1, 3, 40, 60)
    targets = Targets.stack([{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}])
    batch = model.preprocess([image])
    assert model([image], targets)["loss"] == model.loss(batch, targets)["loss"]
    assert model.features(batch)[0].shape == (1, 3, 40, 60)


def test_transforms_under_tiles_and_ensembles(squares, painted):
    image = painted((50, 70), [(3, 5, 12, 15, 0), (41, 30, 49, 42, 1)])
    doubled = TransformedDetector(detector=squares(num_classes=2), transforms=(Double(),))
    both = EnsembleDetector(detectors=(doubled, squares(num_classes=2)))
    model = TiledDetector(detector=both, tile=40, overlap=0.5, full_image=False).eval()
    assert model([image]).unpad()[0].boxes.tolist() == [[41, 30, 49, 42], [3, 5, 12, 15]]
    assert {shape[1:] for shape in doubled.detector.sizes} == {(3, 80, 80)}


def test_geometry_goes_through_transforms(squares, image):
    model = TransformedDetector(detector=squares(num_classes=3), transforms=(Double(),)).eval()
    batch = model.preprocess([image], [ImageGeometry((80, 120), scale=(0.5, 0.5))])
    assert batch.scale.tolist() == [[1.0, 1.0]]
    assert model(batch).to_original(batch).unpad()[0].boxes[0].tolist() == [60, 64, 80, 80]


# -------------------------------------------------------------------------------------------------- raw batches


def test_raw_batches_hold_images_as_they_are():
    images = [
        torch.randint(256, (3, 5, 7), dtype=torch.uint8),
        torch.randint(256, (3, 6, 4), dtype=torch.uint8),
    ]
    batch = raw_batch(images, None, torch.device("cpu"))
    assert isinstance(batch, ImageBatch)
    assert all(torch.equal(a, b) for a, b in zip(raw_images(batch), images, strict=True))
    mixed = raw_images(raw_batch([images[0], images[1] / 255], None, torch.device("cpu")))
    assert torch.equal(mixed[0] * 255, images[0].float())
    assert torch.equal(mixed[1], images[1] / 255)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "at least one image"),
        (
            [torch.zeros(3, 4, 4), torch.zeros(4, 4)],
            r"images\[1\]: expected a tensor \[3, H, W\], got \[4, 4\]",
        ),
        ([torch.zeros(3, 4, 4, dtype=torch.int64)], "uint8"),
        (["a.jpg"], "got str"),
    ],
)
def test_raw_batches_are_checked(images, message):
    with pytest.raises(DataError, match=message):
        raw_batch(images, None, torch.device("cpu"))
