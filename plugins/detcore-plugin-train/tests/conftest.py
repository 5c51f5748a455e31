"""A tiny detector, generated data and a simple metric, registered without being installed."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.ops import box_iou

from detcore import registry
from detcore.component import Part, make, wired
from detcore.detectors import SingleStageDetector
from detcore.distributed import mean_count
from detcore.interfaces import Backbone, Dataset, DenseHead, Example, Metric, Transform
from detcore.structures import (
    Assignment,
    ClassMap,
    DenseOutput,
    Detections,
    FeatureSpec,
    ImageBatch,
    ImageDetections,
    ImageGeometry,
    LevelShape,
    Losses,
)


class ToyBackbone(Backbone):
    """Two strided convolutions with batch normalisation between them, and dropout."""

    def __init__(
        self, *, channels: Annotated[int, Field(ge=1)] = 16, dropout: float = 0.0, norm: bool = True
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 4, 4)
        self.norm = nn.BatchNorm2d(channels) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.conv = nn.Conv2d(channels, channels, 3, 2, 1)
        self.out_features = (FeatureSpec(channels, 8),)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return (self.conv(self.dropout(self.norm(self.stem(pixels)).relu())).relu(),)


class ToyHead(DenseHead):
    """Per cell: is a ground truth's centre here, which class, and how far are the box's edges."""

    def __init__(
        self,
        *,
        in_features: tuple[FeatureSpec, ...] = wired(),
        num_classes: int = wired(),
        poison_step: int | None = None,
        one_positive: bool = False,
    ) -> None:
        super().__init__()
        (feature,) = in_features
        self.stride, self.poison_step, self.step = feature.stride, poison_step, 0
        self.one_positive = one_positive
        self.out = nn.Conv2d(feature.channels, num_classes + 4, 1)
        self.num_classes = num_classes
        nn.init.constant_(self.out.bias[:num_classes], -2.0)

    def on_progress(self, epoch: int, step: int) -> None:
        self.step = step

    def forward(self, features, batch, targets=None) -> DenseOutput:
        out = self.out(features[0])
        h, w = out.shape[-2:]
        out = out.flatten(2).transpose(1, 2)
        return DenseOutput((LevelShape(h, w),), out[..., : self.num_classes], out[..., self.num_classes :])

    def centers(self, output: DenseOutput) -> Tensor:
        h, w = output.levels[0]
        y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
        return torch.stack((x, y), -1).reshape(-1, 2).to(output.codes) * self.stride

    def match(self, output, targets, batch) -> Assignment:
        centers = self.centers(output)[None, :, None]
        low, high = targets.boxes[:, None, :, :2], targets.boxes[:, None, :, 2:]
        inside = ((centers > low) & (centers < high)).all(-1) & targets.matchable[:, None]
        index = inside.int().argmax(-1)
        state = inside.any(-1).to(torch.int8)
        if self.one_positive:
            first = torch.arange(state.shape[1]) == state.argmax(-1, keepdim=True)
            state = state * first
        return Assignment(index, state, state.float())

    def loss(self, output, targets, batch, assignment=None) -> Losses:
        assignment = assignment or self.match(output, targets, batch)
        positive = assignment.positive
        labels = targets.labels.gather(1, assignment.gt_index)
        wanted = F.one_hot(labels, self.num_classes).to(output.logits) * positive[..., None]
        boxes = targets.boxes.gather(1, assignment.gt_index[..., None].expand(-1, -1, 4))
        count = mean_count(positive.sum().float())
        loss_cls = F.binary_cross_entropy_with_logits(output.logits, wanted, reduction="sum") / count
        distance = (self.decode(output) - boxes).abs().sum(-1) / self.stride
        loss_box = (distance * positive).sum() / count
        if self.poison_step is not None and self.step >= self.poison_step:
            loss_box = loss_box * float("nan")
        return Losses({"loss_cls": loss_cls, "loss_box": loss_box}, {"positives": count})

    def decode(self, output: DenseOutput) -> Tensor:
        centers, distance = self.centers(output), output.codes.float().exp() * self.stride
        return torch.cat((centers - distance[..., :2], centers + distance[..., 2:]), -1)

    def predict(self, output, batch: ImageBatch) -> Detections:
        scores, labels = output.logits.float().sigmoid().max(-1)
        scores, index = scores.topk(min(10, scores.shape[1]))
        boxes = self.decode(output).gather(1, index[..., None].expand(-1, -1, 4))
        return Detections(boxes, scores, labels.gather(1, index), scores > 0.05)


class ToyDataset(Dataset):
    """One bright rectangle per image, red or green; every fifth image is empty. Nothing is read."""

    def __init__(
        self,
        *,
        length: Annotated[int, Field(ge=0)] = 12,
        offset: int = 0,
        noise: float = 0.1,
        empty_every: int | None = 5,
        transforms: tuple[Part[Transform], ...] = (),
        root: Path | None = wired(None, may_override=True),
        classes: tuple[str, ...] | None = wired(None, may_override=True),
    ) -> None:
        self.length, self.offset, self.noise, self.root = length, offset, noise, root
        self.empty_every = empty_every
        self.transforms = tuple(make(transform) for transform in transforms)
        self.class_map = ClassMap(classes or ("red", "green"), tuple(range(1, 1 + len(classes or "ab"))))

    def __len__(self) -> int:
        return self.length

    def target(self, index: int) -> tuple[list[list[float]], list[int]]:
        if self.empty_every is not None and index % self.empty_every == self.empty_every - 1:
            return [], []
        generator = torch.Generator().manual_seed(index + 1000 * self.offset)
        x, y = torch.randint(4, 24, (2,), generator=generator).tolist()
        w, h = torch.randint(16, 30, (2,), generator=generator).tolist()
        return [[x, y, x + w, y + h]], [index % 2]

    def __getitem__(self, index: int) -> Example:
        boxes, labels = self.target(index)
        image = torch.full((3, 56, 64), 60.0)
        for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
            image[label, y1:y2, x1:x2] = 220
        image += torch.randn(image.shape) * 255 * self.noise  # augmentation, from torch's generator
        example = Example(
            image=tv_tensors.Image(image.clamp(0, 255).to(torch.uint8)),
            boxes=tv_tensors.BoundingBoxes(
                torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), format="XYXY", canvas_size=(56, 64)
            ),
            labels=torch.tensor(labels, dtype=torch.int64),
            ignore=torch.zeros(len(labels), dtype=torch.bool),
            image_id=100 + index,
            file=f"memory/{index}.png",
            geometry=ImageGeometry((56, 64)),
        )
        for transform in self.transforms:
            example = transform(example)
        return example

    def with_transforms(self, transforms: tuple[Transform, ...]) -> "ToyDataset":
        other = copy.copy(self)
        other.transforms = transforms
        return other


class ToyShift(Transform):
    """Says that the image was cut five pixels from the left, without doing it."""

    def __init__(self) -> None:
        pass

    def __call__(self, example: Example) -> Example:
        geometry = dataclasses.replace(example["geometry"], origin=(5.0, 0.0))
        return Example(**{**example, "geometry": geometry})


class ToyMetric(Metric):
    """``AP``: the mean IoU of each ground truth with the best detection of its class."""

    def start(self, dataset: Dataset) -> None:
        self.dataset, self.found, self.seen = dataset, [], []

    def update(self, image_ids: Sequence[int], detections: Sequence[ImageDetections]) -> None:
        for image_id, found in zip(image_ids, detections, strict=True):
            self.seen.append(image_id)
            boxes, labels = self.dataset.target(image_id - 100)
            for box, label in zip(boxes, labels, strict=True):
                mine = found.boxes[found.labels == label]
                best = float(box_iou(torch.tensor([box]).float(), mine).max()) if len(mine) else 0.0
                self.found.append(best)

    def compute(self) -> dict[str, float | None]:
        assert sorted(self.seen) == [100 + i for i in range(len(self.dataset))]
        mean = sum(self.found) / len(self.found) if self.found else None
        return {"AP": mean, "AP50": None}


TOYS = (ToyBackbone, ToyHead, ToyDataset, ToyMetric, ToyShift)


def toy_registry():
    """The toy components beside what is installed."""
    entries = {
        registry.Entry(toy.kind, toy.__name__, "detcore-toys", "1.0", f"{toy.__module__}:{toy.__name__}"): toy
        for toy in TOYS
    }
    return registry.Registry([*registry.current().entries, *entries], entries)


@pytest.fixture
def toys():
    """The registry with the toy components beside what is installed."""
    with registry.use(toy_registry()) as used:
        yield used


@pytest.fixture
def config(toys):
    """A small experiment as it stands in a file."""
    return {
        "type": "Experiment",
        "model": {
            "type": "SingleStageDetector",
            "backbone": {"type": "ToyBackbone"},
            "head": {"type": "ToyHead"},
            "preprocessor": {"type": "ImagePreprocessor", "size_divisor": 8},
        },
        "data": {
            "type": "DetectionData",
            "train": {"type": "ToyDataset"},
            "val": {"type": "ToyDataset", "length": 7, "offset": 1},
            "batch_size": 4,
            "workers": 0,
        },
        "optimizer": {"type": "SGD", "lr": 0.01},
        "schedule": {"type": "StepSchedule", "warmup_steps": 2, "milestones": [0.75]},
        "metric": {"type": "ToyMetric"},
        "epochs": 2,
        "log_every": 1,
    }


@pytest.fixture
def toy_detector(toys) -> SingleStageDetector:
    """An untrained detector for the toy data."""
    return SingleStageDetector(num_classes=2, backbone=ToyBackbone.spec(), head=ToyHead.spec())


@pytest.fixture(autouse=True)
def _one_thread():
    """Small tensors gain nothing from threads, and the machine is shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
