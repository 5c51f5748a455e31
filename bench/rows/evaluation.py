"""COCO's numbers from detections."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.row import Row
from bench.rows import scene

SIZE = (480, 640)
TRUTHS, FOUND = 7, 50


def truth(images: int) -> dict[str, Any]:
    """Annotations in COCO's format, as many per image as COCO has."""
    boxes, labels = scene.boxes(images * TRUTHS, SIZE).cpu(), scene.labels(images * TRUTHS).cpu()
    wide = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).tolist()
    annotations = [
        {"id": i + 1, "image_id": i // TRUTHS + 1, "category_id": label + 1, "bbox": box,
         "area": box[2] * box[3], "iscrowd": 0}
        for i, (box, label) in enumerate(zip(wide, labels.tolist(), strict=True))
    ]  # fmt: skip
    return {
        "images": [
            {"id": i + 1, "file_name": f"{i}.jpg", "height": SIZE[0], "width": SIZE[1]} for i in range(images)
        ],
        "annotations": annotations,
        "categories": [{"id": k + 1, "name": f"class {k}"} for k in range(scene.CLASSES)],
    }


def detections(images: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Boxes [images, FOUND, 4], scores and labels: the ground truth, shifted, and others."""
    generator = torch.Generator().manual_seed(1)
    boxes = scene.boxes(images * FOUND, SIZE, 1).cpu().view(images, FOUND, 4)
    labels = scene.labels(images * FOUND, 1).cpu().view(images, FOUND)
    boxes[:, :TRUTHS] = scene.boxes(images * TRUTHS, SIZE).cpu().view(images, TRUTHS, 4)
    boxes[:, :TRUTHS] += torch.randn(images, TRUTHS, 4, generator=generator)
    labels[:, :TRUTHS] = scene.labels(images * TRUTHS).cpu().view(images, TRUTHS)
    return boxes, torch.rand(images, FOUND, generator=generator), labels


def detcore(images: int) -> Callable[[], Any]:
    """detcore's metric, fed image by image."""
    from detcore_data import CocoDataset, CocoMetric

    from detcore.structures import ImageDetections

    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    (root / "instances.json").write_text(json.dumps(truth(images)))
    for i in range(images):
        (root / f"{i}.jpg").touch()  # that the pictures are there is checked, what is in them is not read
    data = CocoDataset(root=str(root), annotations="instances.json", images=".")
    found = [ImageDetections(*parts) for parts in zip(*detections(images), strict=True)]
    metric = CocoMetric()

    def work() -> Any:
        metric.start(data)
        for i, image in enumerate(found):
            metric.update([i + 1], [image])
        return metric.compute()

    return work


def pycocotools(images: int) -> Callable[[], Any]:
    """The reference."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    coco = COCO()
    coco.dataset = truth(images)
    coco.createIndex()
    boxes, scores, labels = detections(images)
    boxes[..., 2:] -= boxes[..., :2]
    found = [
        {"image_id": i + 1, "category_id": label + 1, "bbox": box, "score": score}
        for i in range(images)
        for box, score, label in zip(boxes[i].tolist(), scores[i].tolist(), labels[i].tolist(), strict=True)
    ]

    def work() -> Any:
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return evaluation.stats

    return work


ROWS = {
    f"coco_{images}": Row(
        f"COCO evaluation of {images:,} images, {FOUND} detections each",
        {
            "detcore": functools.partial(detcore, images),
            "pycocotools": functools.partial(pycocotools, images),
        },
        targets={"pycocotools": 8.0},
    )
    for images in (1500, 5000)
}
