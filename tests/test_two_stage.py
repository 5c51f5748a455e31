"""The two-stage detector, composed of toy heads."""

import copy
import pickle

import pytest
import torch
from torch import nn

from detcore import TwoStageDetector
from detcore.component import wired
from detcore.errors import ConfigError
from detcore.interfaces import ProposalHead, RoIHead
from detcore.structures import Assignment, Detections, FeatureSpec, HeadOutput, Losses, Proposals


class ToyProposer(ProposalHead):
    """Proposes the whole image."""

    def __init__(
        self,
        *,
        in_features: tuple[FeatureSpec, ...] = wired(),
        num_classes: int = wired(),
        name: str = "first",
    ) -> None:
        super().__init__()
        self.num_classes, self.name = num_classes, name
        self.conv = nn.Conv2d(in_features[0].channels, 1, 1)

    def forward(self, features, batch, targets=None) -> HeadOutput:
        self.seen = self.conv(features[0]).mean()
        return HeadOutput(())

    def match(self, output, targets, batch) -> Assignment:
        raise AssertionError("not used")

    def loss(self, output, targets, batch, assignment=None) -> Losses:
        self.labels = targets.labels
        return Losses({self.name: self.seen}, {"count": targets.valid.sum()})

    def propose(self, output, batch) -> Proposals:
        boxes = torch.cat((torch.zeros_like(batch.sizes), batch.sizes.flip(-1)), -1).float()[:, None]
        return Proposals(boxes, boxes.new_ones(len(batch), 1), boxes.new_ones(len(batch), 1).bool())

    def predict(self, output, batch) -> Detections:
        raise AssertionError("not used")


class ToyRoIHead(RoIHead):
    """Detects what is proposed."""

    def __init__(self, *, in_features: tuple[FeatureSpec, ...] = wired(), num_classes: int = wired()) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv = nn.Conv2d(in_features[0].channels, num_classes, 1)

    def loss(self, features, proposals, targets, batch) -> Losses:
        self.labels = targets.labels
        return Losses({"second": self.conv(features[0]).mean()}, {"count": targets.labels.sum()})

    def predict(self, features, proposals, batch) -> Detections:
        labels = torch.zeros_like(proposals.scores, dtype=torch.int64)
        return Detections(proposals.boxes, proposals.scores, labels, proposals.valid)


@pytest.fixture
def make_model(toys):
    def make_model(**changes):
        parts = {
            "num_classes": 3,
            "backbone": toys["ToyBackbone"].spec(channels=5),
            "neck": toys["ToyNeck"].spec(out_channels=6),
            "rpn_head": ToyProposer.spec(),
            "roi_head": ToyRoIHead.spec(),
        }
        return TwoStageDetector(**{**parts, **changes})

    return make_model


IMAGES = [torch.zeros(3, 40, 50, dtype=torch.uint8), torch.zeros(3, 20, 30, dtype=torch.uint8)]
TARGETS = [
    {"boxes": torch.tensor([[1.0, 2, 3, 4]]), "labels": torch.tensor([2])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
]


def test_wiring(make_model):
    model = make_model()
    assert model.rpn_head.num_classes == 1
    assert model.roi_head.num_classes == 3
    assert model.rpn_head.conv.in_channels == model.roi_head.conv.in_channels == 6


def test_neck_is_optional(make_model):
    assert make_model(neck=None).roi_head.conv.in_channels == 5


def test_losses_of_both_stages(make_model):
    model = make_model()
    losses = model(IMAGES, TARGETS)
    assert list(losses) == ["first", "second"]
    assert {name: int(value) for name, value in losses.metrics.items()} == {"rpn_count": 1, "count": 2}
    losses.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_first_stage_sees_one_class(make_model):
    model = make_model()
    model(IMAGES, TARGETS)
    assert model.rpn_head.labels.tolist() == [[0], [0]]
    assert model.roi_head.labels.tolist() == [[2], [0]]


def test_names_that_collide(make_model):
    assert list(make_model(rpn_head=ToyProposer.spec(name="second"))(IMAGES, TARGETS)) == [
        "rpn_second",
        "second",
    ]


def test_detections(make_model):
    found = make_model().eval()(IMAGES)
    assert found.boxes[:, 0].tolist() == [[0, 0, 50, 40], [0, 0, 30, 20]]


def test_proposals(make_model):
    model = make_model().eval()
    assert model.propose(model.preprocess(IMAGES)).boxes.shape == (2, 1, 4)


def test_an_instance_for_other_neighbours(make_model):
    head = ToyRoIHead(in_features=(FeatureSpec(7, 8),), num_classes=3)
    with pytest.raises(ConfigError, match=r"ToyRoIHead has in_features=\(7 channels at stride 8\)"):
        make_model(roi_head=head)


def test_pickle_and_deepcopy(make_model):
    model = make_model()
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert again.class_map == model.class_map
        torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
