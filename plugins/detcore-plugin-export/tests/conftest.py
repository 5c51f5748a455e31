"""Detectors for the tests, small enough to be exported in seconds."""

from __future__ import annotations

from typing import Annotated

import pytest
import torch
from detcore_postprocess import NMSPostprocess
from pydantic import Field
from torch import Tensor, nn

from detcore.component import Part, make, wired
from detcore.detectors import SingleStageDetector
from detcore.interfaces import Backbone, DenseHead, Postprocess
from detcore.structures import (
    Assignment,
    ClassMap,
    DenseOutput,
    Detections,
    FeatureSpec,
    ImageBatch,
    LevelShape,
    Losses,
    Targets,
)


class Cells(Backbone):
    """One strided convolution, and maybe something else."""

    def __init__(self, *, channels: Annotated[int, Field(ge=1)] = 8, stride: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, stride, stride)
        self.extra: nn.Module = nn.Identity()
        self.out_features = (FeatureSpec(channels, stride),)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return (self.extra(self.conv(pixels)).tanh(),)


class CellHead(DenseHead):
    """A box in every cell, for every class."""

    def __init__(
        self,
        *,
        in_features: tuple[FeatureSpec, ...] = wired(),
        num_classes: Annotated[int, Field(ge=1)] = wired(),
        postprocess: Part[Postprocess] = NMSPostprocess.spec(nms_pre=50, max_per_img=20, score_thr=0.3),
    ) -> None:
        super().__init__()
        self.stride = in_features[0].stride
        self.cls = nn.Conv2d(in_features[0].channels, num_classes, 1)
        self.reg = nn.Conv2d(in_features[0].channels, 4, 1)
        self.postprocess = make(postprocess)

    def forward(self, features, batch: ImageBatch, targets: Targets | None = None) -> DenseOutput:
        (feature,) = features
        rows = [conv(feature).flatten(2).transpose(1, 2) for conv in (self.cls, self.reg)]
        return DenseOutput((LevelShape(*feature.shape[2:]),), *rows)

    def match(self, output, targets, batch) -> Assignment:
        raise AssertionError("never trained")

    def loss(self, output, targets, batch, assignment=None) -> Losses:
        raise AssertionError("never trained")

    def predict(self, output, batch: ImageBatch) -> Detections:
        ((height, width),) = output.levels
        y, x = torch.arange(height)[:, None], torch.arange(width)
        corner = (
            torch.stack((x.expand(height, width), y.expand(height, width)), -1).reshape(-1, 2) * self.stride
        )

        def decode(prior: Tensor, label: Tensor) -> Tensor:
            code = output.codes.gather(1, prior[..., None].expand(-1, -1, 4))
            center = corner[prior] + code[..., :2] * self.stride
            half = (1 + code[..., 2:].abs()) * self.stride
            return torch.cat((center - half, center + half), -1).clamp(min=0)

        return self.postprocess(output.logits.sigmoid(), decode, batch)


class Breaking(nn.Module):
    """Cannot be captured: a Python number depends on the data."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum().item() > 0 else x


class Untranslated(nn.Module):
    """Can be captured, but has an operator that ONNX has not."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.i1e(x)


@pytest.fixture(scope="session")
def make_detector():
    def build(num_classes: int = 3, **head) -> SingleStageDetector:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            detector = SingleStageDetector(
                num_classes=num_classes, backbone=Cells(), head=CellHead.spec(**head)
            ).eval()
        detector.class_map = ClassMap(("ant", "bee", "cow")[:num_classes], (3, 7, 9)[:num_classes])
        return detector

    return build


@pytest.fixture
def breaking():
    return Breaking()


@pytest.fixture
def untranslated():
    return Untranslated()
