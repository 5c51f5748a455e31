"""What the interface does for every detector, and the base of those around another one."""

import copy
import pickle

import pytest
import torch
from torch import nn

from detcore.component import Part, make, wired
from detcore.detectors import WrappedDetector
from detcore.errors import ConfigError, DataError
from detcore.interfaces import Assigner, Detector
from detcore.structures import ClassMap, Detections, ImageBatch, Losses, Targets


class Rule(Assigner):
    """Listens."""

    def __init__(self, *, name: str = "rule") -> None:
        super().__init__()
        self.told = []

    def assign(self, priors, targets, predictions=None, batch=None): ...

    def on_progress(self, epoch, step):
        self.told.append((epoch, step))


class Least(Detector):
    """No more than what the interface asks for; one box per image, the mean of its pixels as score."""

    def __init__(self, *, num_classes: int = wired(), rule: Part[Assigner] = Rule.spec()) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.rule = make(rule)
        self.weight = nn.Parameter(torch.ones(1))

    def preprocess(self, images, geometry=None):
        return ImageBatch.of(torch.stack([image / 255 for image in images]), geometry=geometry)

    def features(self, batch):
        return (batch.pixels * self.weight,)

    def loss(self, batch, targets):
        self.targets = targets
        return Losses({"loss": self.features(batch)[0].mean()})

    def predict(self, batch):
        scores = self.features(batch)[0].mean((1, 2, 3))[:, None].clamp(0, 1)
        boxes = torch.tensor([0.0, 0.0, 4.0, 4.0]).expand(len(batch), 1, 4)
        return Detections(boxes, scores, torch.zeros_like(scores).long(), scores > 0)


class Old(Detector):
    """Written before the interface had anything of its own: all is defined, ``num_classes`` is not kept."""

    def __init__(self, *, num_classes: int = wired()) -> None:
        super().__init__()
        self.class_map = ClassMap(tuple(f"old{i}" for i in range(num_classes)))
        self.weight = nn.Parameter(torch.ones(1))
        self.told = []

    preprocess, features, predict = Least.preprocess, Least.features, Least.predict

    def loss(self, batch, targets):
        return Losses({"loss": self.weight.sum() * len(targets)})

    def forward(self, images, targets=None):
        batch = images if isinstance(images, ImageBatch) else self.preprocess(images)
        return self.loss(batch, targets) if self.training else self.predict(batch)

    def on_progress(self, epoch, step):
        self.told.append((epoch, step))


class OldWithProperty(Old):
    """The map under a property, and the number of classes kept after it."""

    def __init__(self, *, num_classes: int = wired()) -> None:
        super().__init__(num_classes=num_classes)
        self.num_classes = num_classes

    @property
    def class_map(self):
        return self.__dict__["map"]

    @class_map.setter
    def class_map(self, value):
        self.__dict__["map"] = value


def objects(*labels):
    return {
        "boxes": torch.tensor([[1.0, 2, 3, 4]] * len(labels)).reshape(-1, 4),
        "labels": torch.tensor(labels),
    }


IMAGES = [torch.full((3, 8, 8), 51, dtype=torch.uint8), torch.full((3, 8, 8), 102, dtype=torch.uint8)]


@pytest.fixture(params=["least", "wrapped"])
def model(request):
    detector = Least(num_classes=3)
    return detector if request.param == "least" else WrappedDetector(detector=detector)


def inner(model):
    return getattr(model, "detector", model)


# ---------------------------------------------------------------------------------------------------- forward


def test_images_become_a_batch_and_targets_are_stacked(model):
    losses = model(IMAGES, [objects(2), {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0)}])
    assert isinstance(losses, Losses)
    assert inner(model).targets.labels.tolist() == [[2], [0]]
    assert inner(model).targets.valid.tolist() == [[True], [False]]
    found = model.eval()(IMAGES)
    assert isinstance(found, Detections)
    assert found.scores.flatten().tolist() == pytest.approx([0.2, 0.4])


def test_structures_are_taken_as_they_are(model):
    batch, targets = model.preprocess(IMAGES), Targets.stack([objects(1), objects(0)])
    assert model(batch, targets)["loss"] == model.loss(batch, targets)["loss"]
    assert torch.equal(model.eval()(batch).scores, model.predict(batch).scores)
    assert torch.equal(model.features(batch)[0], batch.pixels)


def test_targets_go_to_where_the_batch_is():
    model = Least(num_classes=3).to("meta")
    model(ImageBatch.of(torch.zeros(1, 3, 8, 8, device="meta")), [objects(1)])
    assert model.targets.boxes.device.type == "meta"


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (None, r"training needs targets: model\(images, targets\); call model.eval\(\) to predict"),
        ([objects(0)], "2 images but targets for 1"),
        (Targets.stack([objects(0)] * 3), "2 images but targets for 3"),
        ([objects(0), objects(1, 3)], r"targets\[1\]: labels should be 0..2, got 1..3"),
        ([objects(-1), objects()], r"targets\[0\]: labels should be 0..2, got -1..-1"),
        ([{"boxes": torch.zeros(1, 4)}] * 2, r"targets\[0\]: the key 'labels' is missing"),
    ],
    ids=["missing", "fewer", "more", "too large", "negative", "no labels"],
)
def test_targets_are_checked(model, targets, message):
    with pytest.raises(DataError, match=message):
        model(IMAGES, targets)


# --------------------------------------------------------------------------------------------------- class map


def test_classes_have_names_from_the_first(model):
    assert model.class_map == ClassMap(("class0", "class1", "class2"))
    model.class_map = ClassMap(("a", "b", "c"), (3, 5, 8))
    assert model.class_map.ids == inner(model).class_map.ids == (3, 5, 8)
    assert model.num_classes == 3
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert again.class_map == model.class_map


def test_another_number_of_classes_is_refused(model):
    with pytest.raises(DataError, match=r"the class map has 1 classes, the detector 3: \('car',\)"):
        model.class_map = ClassMap(("car",))


def test_a_detector_that_forgets_its_number_of_classes_is_told():
    class Forgets(Least):
        def __init__(self, *, num_classes: int = wired()) -> None:
            super().__init__(num_classes=num_classes)
            del self.num_classes

    with pytest.raises(ConfigError, match=r"Forgets does not keep num_classes: its constructor must assign"):
        _ = Forgets(num_classes=3).class_map


# ---------------------------------------------------------------------------------------------------- progress


def test_progress_reaches_each_part_once(model):
    for detector in (model, WrappedDetector(detector=model)):
        inner(inner(detector)).rule.told.clear()
        detector.on_progress(2, 17)
        assert inner(inner(detector)).rule.told == [(2, 17)]


def test_a_detector_below_decides_what_its_parts_hear():
    old = Old(num_classes=2)
    WrappedDetector(detector=old).on_progress(1, 2)
    assert old.told == [(1, 2)]

    class Silent(Least):
        def on_progress(self, epoch, step): ...

    silent = Silent(num_classes=2)
    WrappedDetector(detector=silent).on_progress(1, 2)
    assert silent.rule.told == []


# ------------------------------------------------------------------------------------------ around a detector


def test_a_wrapper_adds_nothing_to_the_state():
    model = WrappedDetector(detector=WrappedDetector(detector=Least(num_classes=3)))
    assert model.state_dict().keys() == {"detector.detector.weight"}


def test_the_number_of_classes_comes_from_either_side():
    assert WrappedDetector(num_classes=5, detector=Least.spec()).num_classes == 5
    with pytest.raises(ConfigError, match="Least has num_classes=2, but its owner supplies 5"):
        WrappedDetector(num_classes=5, detector=Least(num_classes=2))


def test_errors_below_name_their_place():
    with pytest.raises(ConfigError) as caught:
        WrappedDetector(detector=WrappedDetector.spec(detector=Least.spec()))
    assert [problem.path for problem in caught.value.problems] == ["detector.detector.num_classes"]


# --------------------------------------------------------------------------- written before the interface had this


@pytest.mark.parametrize("cls", [Old, OldWithProperty])
def test_detectors_that_define_everything_themselves_still_work(cls):
    model = cls(num_classes=2)
    for detector in (model, WrappedDetector(detector=model)):
        detector.train()
        assert detector(IMAGES, [objects(1), objects(0)])["loss"] == 2
        assert detector.eval()(IMAGES).scores.shape == (2, 1)
        assert detector.class_map.names == ("old0", "old1")
        detector.class_map = ClassMap(("a", "b"))
        assert model.class_map.names == ("a", "b")
        detector.class_map = ClassMap(("old0", "old1"))
        detector.on_progress(0, 1)
    assert model.told == [(0, 1)] * 2
