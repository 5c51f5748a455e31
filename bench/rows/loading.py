"""Reading, decoding and augmenting images in one process."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.row import Row
from bench.rows import scene

COUNT = 16
SIZE = (480, 640)


def folder() -> Path:
    """A data set in COCO's format, made of smooth pictures that compress like photographs."""
    from torchvision.io import write_jpeg
    from torchvision.transforms.v2.functional import resize

    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    annotations = []
    for i in range(COUNT):
        write_jpeg(resize(scene.image((60, 80), i).cpu(), list(SIZE)), str(root / f"{i}.jpg"))
        for x1, y1, x2, y2 in scene.boxes(8, SIZE, i).tolist():
            annotations.append(
                {"id": len(annotations) + 1, "image_id": i, "category_id": 1, "iscrowd": 0,
                 "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            )  # fmt: skip
    images = [{"id": i, "file_name": f"{i}.jpg", "height": SIZE[0], "width": SIZE[1]} for i in range(COUNT)]
    data = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (root / "instances.json").write_text(json.dumps(data))
    return root


def detcore() -> Callable[[], Any]:
    """detcore's data set and transforms."""
    from detcore_data import CocoDataset, RandomFlip, Resize

    root = folder()
    data = CocoDataset(
        root=str(root), annotations="instances.json", images=".",
        transforms=(Resize(scale=(1333, 800)), RandomFlip(prob=0.5)),
    )  # fmt: skip
    return lambda: [data[i] for i in range(COUNT)]


def torchvision() -> Callable[[], Any]:
    """torchvision's, as its detection tutorial puts them together."""
    from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
    from torchvision.transforms import v2

    root = folder()
    steps = [
        v2.ToImage(),
        v2.Resize(800, max_size=1333),
        v2.RandomHorizontalFlip(),
        v2.SanitizeBoundingBoxes(),
    ]
    data = CocoDetection(str(root), str(root / "instances.json"), transforms=v2.Compose(steps))
    data = wrap_dataset_for_transforms_v2(data, target_keys=("boxes", "labels"))
    return lambda: [data[i] for i in range(COUNT)]


ROWS = {
    "coco": Row(
        f"loading {COUNT} images 640 x 480, resized to 1333 x 800, flipped",
        {"detcore": detcore, "torchvision": torchvision},
        targets={"torchvision": 1.0},
    )
}
