"""Ground truth in memory, and generated cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detcore_data import Collected
from detcore_data.records import Annotations, Records

from detcore.errors import DataError
from detcore.structures import ClassMap, ImageDetections

SIZE = (120, 160)


class InMemory:
    """A dataset of which there is only the ground truth.

    ``objects`` are (image id, label, (x1, y1, x2, y2), ignore, any_class) in any order.
    """

    def __init__(self, ids, names, objects=()):
        self.class_map = ClassMap(tuple(names), tuple(range(1, len(names) + 1)))
        place = {image_id: i for i, image_id in enumerate(ids)}
        boxes = np.array([row[2] for row in objects], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] -= boxes[:, :2]
        flags = np.array([row[3:5] for row in objects], dtype=np.bool_).reshape(-1, 2)
        annotations = Annotations.of(
            boxes=boxes,
            labels=np.array([row[1] for row in objects], dtype=np.int64),
            ignore=flags[:, 0],
            any_class=flags[:, 1].copy(),
        )
        image_of = np.array([place[row[0]] for row in objects], dtype=np.int64)
        self.records = Records.of(
            self.class_map,
            "in memory",
            [f"{i}.png" for i in ids],
            list(ids),
            [SIZE] * len(ids),
            image_of,
            annotations,
        )

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        raise DataError(f"image {index} does not exist")


def _detections(rows):
    """From (label, score, (x1, y1, x2, y2))."""
    return ImageDetections(
        torch.tensor([row[2] for row in rows], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([row[1] for row in rows], dtype=torch.float32),
        torch.tensor([row[0] for row in rows], dtype=torch.int64),
    )


@pytest.fixture(scope="session")
def in_memory():
    """The class above."""
    return InMemory


@pytest.fixture(scope="session")
def detections():
    """Detections of an image from (label, score, box)."""
    return _detections


@pytest.fixture(scope="session")
def collect():
    """Detections by image id, collected over a dataset."""

    def collect(dataset, found):
        collected = Collected(dataset)
        collected.add(list(found), [_detections(rows) for rows in found.values()])
        return collected

    return collect


@pytest.fixture(scope="session")
def generate():
    """A generated dataset and detections by image id: ties, crowds, empty images, absent classes."""

    def generate(seed, *, any_class=0.05, ignore=0.2):
        random = np.random.RandomState(seed)
        classes, images = random.randint(1, 5), random.randint(1, 7)
        ids = random.permutation(random.choice(500, images, replace=False)).tolist()
        objects = []
        for image_id in ids:
            for _ in range(random.randint(0, 8) * random.randint(0, 2)):
                ignored = random.rand() < ignore
                label = random.randint(max(classes - 1, 1))
                objects.append(
                    (image_id, label, _box(random), ignored, ignored and random.rand() < any_class * 4)
                )
        found = {}
        for image_id in ids:
            near = [row for row in objects if row[0] == image_id]
            rows = []
            for row in near * random.randint(0, 4) + [None] * random.randint(0, 4):
                box = np.array(_box(random) if row is None else row[2])
                label = random.randint(classes) if row is None or random.rand() < 0.25 else row[1]
                scale = np.tile(box[2:] - box[:2], 2)
                box = box + random.choice([0, 0.03, 0.1, 0.3, 0.6]) * random.randn(4) * scale * 0.5
                box[2:] = np.maximum(box[2:], box[:2] + 1)
                score = random.randint(1, 9) / 8 if random.rand() < 0.6 else random.rand()
                rows.append((label, score, box.tolist()))
            if rows or random.rand() < 0.8:
                found[image_id] = rows
        return InMemory(ids, [f"class {i}" for i in range(classes)], objects), found

    return generate


def _box(random):
    w, h = random.randint(8, 70, 2)
    x, y = random.randint(0, SIZE[1] - w), random.randint(0, SIZE[0] - h)
    return [float(v) for v in (x, y, x + w, y + h)]
