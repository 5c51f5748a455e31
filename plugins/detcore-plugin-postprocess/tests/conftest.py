"""Scenes, and an implementation of each step that is too simple to be wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from detcore_postprocess import raw_batch, raw_images
from torch import nn
from torchvision.ops import box_iou

from detcore.component import wired
from detcore.interfaces import Detector
from detcore.structures import ClassMap, Detections, ImageBatch, ImageGeometry, Losses


def overlap(a, b):
    return float(box_iou(a[None].double(), b[None].double()))


class Reference:
    """Plain loops over Python lists."""

    @staticmethod
    def nms(boxes, scores, groups, iou_threshold):
        kept = []
        for i in sorted(range(len(boxes)), key=lambda i: (-float(scores[i]), i)):
            rivals = [j for j in kept if int(groups[j]) == int(groups[i])]
            if all(not overlap(boxes[i], boxes[j]) > iou_threshold for j in rivals):
                kept.append(i)
        return kept

    @classmethod
    def image(cls, boxes, scores, levels, options, factors=None, valid=None):
        """Detections [(score, label, box)] of one image."""
        pairs, start = [], 0
        for count in levels:
            level = [
                (float(scores[n, k]), n, k)
                for n in range(start, start + count)
                for k in range(scores.shape[1])
                if bool(scores[n, k] > options["score_thr"]) and (valid is None or bool(valid[n]))
            ]
            level.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
            pairs += level[: options["nms_pre"]]
            start += count
        rows = []
        for _, n, k in pairs:
            w, h = (boxes[n, 2:] - boxes[n, :2]).tolist()
            if min(w, h) > options["min_bbox_size"]:
                rows.append((float(scores[n, k] * (1 if factors is None else factors[n])), k, boxes[n]))
        if not rows:
            return []
        groups = [0 if options["class_agnostic"] else k for _, k, _ in rows]
        kept = cls.nms([b for *_, b in rows], [s for s, *_ in rows], groups, options["iou_threshold"])
        return [rows[i] for i in kept][: options["max_per_img"]]


@pytest.fixture
def reference():
    return Reference


@pytest.fixture
def scene():
    """A maker of (boxes [B, N, 4], scores [B, N, K]), rounded so that there are ties."""

    def make(seed=0, images=2, priors=40, classes=3, coarse=True, low=-20, high=60):
        generator = torch.Generator().manual_seed(seed)
        corners = torch.rand(images, priors, 2, generator=generator) * (high - low) + low
        sizes = torch.rand(images, priors, 2, generator=generator) * 40
        scores = torch.rand(images, priors, classes, generator=generator)
        if coarse:
            corners, sizes, scores = corners.round(), sizes.round(), (scores * 20).round() / 20
        return torch.cat((corners, corners + sizes), -1), scores

    return make


@pytest.fixture
def batch_of():
    """A maker of batches of a number of images."""
    return lambda count: ImageBatch.of(torch.zeros(count, 3, 8, 8))


@pytest.fixture
def lookup():
    """A maker of decoders from given boxes."""

    def make(boxes):
        return lambda prior, label: boxes.gather(1, prior[..., None].expand(-1, -1, 4))

    return make


class Squares(Detector):
    """Finds every colour but black, exactly: red is the object's number, green its class.

    Args:
        num_classes: K.
        names: Of the classes, in the order of its labels.
        zoom: It looks at images this many times as large.
        doubt: Taken from its scores.
    """

    def __init__(
        self, *, num_classes: int = wired(), names: tuple[str, ...] = (), zoom: int = 1, doubt: float = 0.0
    ) -> None:
        super().__init__()
        self.zoom, self.doubt = zoom, doubt
        self.num_classes = num_classes
        if names:
            self.class_map = ClassMap(names)
        self.weight = nn.Parameter(torch.ones(1))
        self.sizes = []

    def preprocess(self, images, geometry=None):
        ways = [ImageGeometry(tuple(image.shape[1:])) for image in images] if geometry is None else geometry
        large = [image.repeat_interleave(self.zoom, 1).repeat_interleave(self.zoom, 2) for image in images]
        z = self.zoom
        ways = [
            replace(
                way,
                scale=(way.scale[0] * z, way.scale[1] * z),
                origin=(way.origin[0] * z, way.origin[1] * z),
            )
            for way in ways
        ]
        return raw_batch(large, ways, self.weight.device)

    def features(self, batch):
        return (batch.pixels * self.weight,)

    def loss(self, batch, targets):
        labels = targets.labels.float().sum()
        return Losses({"loss": batch.pixels.float().mean() * self.weight.sum()}, {"labels": labels})

    @torch.no_grad()
    def predict(self, batch):
        self.sizes.append(tuple(batch.pixels.shape))
        found = [self._of(image) for image in raw_images(batch)]
        count = max([1, *(len(own) for own in found)])
        rows = torch.zeros(len(batch), count, 6)
        for row, own in zip(rows, found, strict=True):
            row[: len(own)] = torch.tensor(own).reshape(-1, 6)
        return Detections(rows[..., :4], rows[..., 4], rows[..., 5].long(), rows[..., 4] > 0)

    def _of(self, image):
        found = []
        for number in image[0].unique().tolist():
            if number:
                ys, xs = (image[0] == number).nonzero(as_tuple=True)
                box = [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]
                found.append([*box, number / 256 - self.doubt, int(image[1, ys[0], xs[0]])])
        return sorted(found, key=lambda row: -row[4])


@pytest.fixture
def squares():
    """The class of a detector that finds coloured rectangles, exactly."""
    return Squares


@pytest.fixture
def painted():
    """A maker of uint8 images with rectangles (x1, y1, x2, y2, label); the first is the faintest."""

    def make(size, objects):
        image = torch.zeros(3, *size, dtype=torch.uint8)
        for number, (x1, y1, x2, y2, label) in enumerate(objects, start=1):
            image[:, y1:y2, x1:x2] = torch.tensor([number, label, 0], dtype=torch.uint8)[:, None, None]
        return image

    return make
