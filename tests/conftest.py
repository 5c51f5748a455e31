"""Fixtures for the core's tests: small components registered without being installed."""

from __future__ import annotations

from typing import Annotated

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from detcore import registry
from detcore.component import Part, make, wired
from detcore.interfaces import Assigner, Backbone, DenseHead, Loss, Neck
from detcore.structures import Assignment, DenseOutput, Detections, FeatureSpec, LevelShape, Losses


class ToyBackbone(Backbone):
    """One strided convolution."""

    def __init__(self, *, channels: Annotated[int, Field(ge=1)] = 4, stride: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, stride, stride)
        self.out_features = (FeatureSpec(channels, stride),)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return (self.conv(pixels),)


class ToyNeck(Neck):
    """A 1x1 convolution per level."""

    def __init__(
        self, *, in_features: tuple[FeatureSpec, ...] = wired(), out_channels: Annotated[int, Field(ge=1)] = 4
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(f.channels, out_channels, 1) for f in in_features)
        self.out_features = tuple(FeatureSpec(out_channels, f.stride) for f in in_features)

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(conv(f) for conv, f in zip(self.convs, features, strict=True))


class ToyAssigner(Assigner):
    """Every prior to the first ground truth."""

    def __init__(
        self,
        *,
        pos_thr: Annotated[float, Field(ge=0, le=1)] = 0.5,
        neg_thr: Annotated[float, Field(ge=0, le=1)] = 0.4,
    ) -> None:
        super().__init__()
        if neg_thr > pos_thr:
            raise ValueError(f"neg_thr should not be above pos_thr, got {neg_thr} and {pos_thr}")
        self.seen: list[tuple[int, int]] = []

    def assign(self, priors, targets, predictions=None, batch=None) -> Assignment:
        shape = (len(targets), len(priors))
        state = targets.matchable.any(1, keepdim=True).to(torch.int8).expand(shape)
        return Assignment(torch.zeros(shape, dtype=torch.int64), state, state.float())

    def on_progress(self, epoch: int, step: int) -> None:
        self.seen.append((epoch, step))


class ToyLoss(Loss):
    """Squared error."""

    def __init__(self, *, loss_weight: float = 1.0) -> None:
        super().__init__()
        if loss_weight < 0:
            raise ValueError(f"loss_weight should not be negative, got {loss_weight}")
        self.loss_weight = loss_weight

    def forward(self, pred, target, *, weight=None, avg_factor=None, reduction=None) -> Tensor:
        return self.loss_weight * (pred - target).square().mean()


class ToyHead(DenseHead):
    """Predicts the presence of something, per cell."""

    def __init__(
        self,
        *,
        in_features: tuple[FeatureSpec, ...] = wired(),
        num_classes: int = wired(),
        assigner: Part[Assigner] = ToyAssigner.spec(),
        losses: tuple[Part[Loss], ...] = (ToyLoss.spec(),),
        aux: Part[Loss] | None = None,
        ratios: tuple[float, ...] = (0.5, 1.0),
    ) -> None:
        super().__init__()
        self.assigner = make(assigner)
        self.losses = nn.ModuleList(make(loss) for loss in losses)
        self.aux = make(aux)
        self.conv = nn.Conv2d(in_features[0].channels, num_classes, 1)

    def forward(self, features, batch, targets=None) -> DenseOutput:
        logits = self.conv(features[0])
        levels = (LevelShape(*logits.shape[-2:]),)
        return DenseOutput(levels, logits.flatten(2).transpose(1, 2), logits.new_zeros(len(batch), 1, 4))

    def match(self, output, targets, batch) -> Assignment:
        raise AssertionError("not used")

    def loss(self, output, targets, batch, assignment=None) -> Losses:
        wanted = targets.matchable.any(1).float()[:, None, None]
        return Losses({f"loss{i}": loss(output.logits, wanted) for i, loss in enumerate(self.losses)})

    def predict(self, output, batch) -> Detections:
        scores, labels = output.logits.sigmoid().amax(1).max(-1, keepdim=True)
        boxes = torch.cat((torch.zeros_like(batch.sizes), batch.sizes.flip(-1)), -1).float()
        return Detections(boxes[:, None], scores, labels, torch.ones_like(labels, dtype=torch.bool))


TOYS = (ToyBackbone, ToyNeck, ToyAssigner, ToyLoss, ToyHead)


@pytest.fixture
def toys():
    """The toy classes by name, registered beside what is installed, as distribution ``toys``."""
    classes = {
        registry.Entry(toy.kind, toy.__name__, "toys", "1.0", f"{toy.__module__}:{toy.__name__}"): toy
        for toy in TOYS
    }
    installed = registry.current()
    with registry.use(registry.Registry([*installed.entries, *classes], classes)):
        yield {toy.__name__: toy for toy in TOYS}


@pytest.fixture
def toy_config():
    return {
        "type": "SingleStageDetector",
        "num_classes": 3,
        "backbone": {"type": "ToyBackbone", "channels": 5},
        "neck": {"type": "ToyNeck", "out_channels": 6},
        "head": {"type": "ToyHead", "assigner": {"type": "ToyAssigner", "pos_thr": 0.6}},
    }
