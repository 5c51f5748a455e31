"""Which ground truth each prior answers for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from bench.row import Row
from bench.rows import models, scene

_MEMORY = "needs more than 24 GiB"


def detcore(kind: str, count: int, batch: int) -> Callable[[], Any]:
    """detcore's assigner on the priors of a pyramid."""
    import detcore_assigners
    from detcore_priors import AnchorGenerator

    from detcore.structures import ImageBatch, Targets

    sizes = [scene.SIZE] * batch
    images = ImageBatch.of(torch.zeros(batch, 3, 1, 1, device=scene.device()), sizes, sizes)
    ratios = (0.5, 1.0, 2.0)
    generator = (
        AnchorGenerator(strides=scene.STRIDES, ratios=ratios, octave_base_scale=4, scales_per_octave=3)
        if kind == "MaxIoUAssigner"
        else AnchorGenerator(strides=scene.STRIDES, ratios=(1.0,), octave_base_scale=8, scales_per_octave=1)
    )
    assigner = (
        detcore_assigners.MaxIoUAssigner(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.0)
        if kind == "MaxIoUAssigner"
        else detcore_assigners.ATSSAssigner()
    )
    priors = generator(scene.LEVELS, images)
    pictures = [
        {"boxes": scene.boxes(count, scene.SIZE, seed), "labels": scene.labels(count, seed)}
        for seed in range(batch)
    ]
    targets = Targets.stack(pictures)
    return lambda: assigner.assign(priors, targets, None, images)


def anchors() -> torch.Tensor:
    """The 193,374 anchors of RetinaNet [N, 4]."""
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.image_list import ImageList

    sizes = tuple(tuple(4 * s * 2 ** (k / 3) for k in range(3)) for s in scene.STRIDES)
    generator = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
    maps = [torch.zeros(1, 1, *level, device=scene.device()) for level in scene.LEVELS]
    images = ImageList(torch.zeros(1, 3, *scene.SIZE, device=scene.device()), [scene.SIZE])
    found: torch.Tensor = generator(images, maps)[0]
    return found


def torchvision(count: int, batch: int) -> Callable[[], Any]:
    """The matching in torchvision's RetinaNet, image by image."""
    from torchvision.models.detection._utils import Matcher
    from torchvision.ops import box_iou

    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)
    priors = anchors()
    truths = [scene.boxes(count, scene.SIZE, seed) for seed in range(batch)]
    return lambda: [matcher(box_iou(truth, priors)) for truth in truths]


def mmdet(count: int, batch: int) -> Callable[[], Any]:
    """MMDetection's MaxIoUAssigner, image by image."""
    from mmdet.models.task_modules.assigners import MaxIoUAssigner
    from mmengine.structures import InstanceData

    assigner = MaxIoUAssigner(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1)
    priors = InstanceData(priors=anchors())
    truths = [
        InstanceData(bboxes=scene.boxes(count, scene.SIZE, seed), labels=scene.labels(count, seed))
        for seed in range(batch)
    ]
    return lambda: [assigner.assign(priors, truth) for truth in truths]


def max_iou(count: int, batch: int = 2) -> Row:
    """MaxIoU assignment with ``count`` ground truths in each image."""
    return Row(
        f"MaxIoU assignment, {batch} x {scene.PRIORS:,} priors, {count} ground truths each",
        {
            "detcore": functools.partial(models.kept, detcore, "MaxIoUAssigner", count, batch),
            "torchvision": functools.partial(torchvision, count, batch),
            "mmdet": functools.partial(mmdet, count, batch),
        },
        limits={"torchvision": _MEMORY, "mmdet": _MEMORY} if count >= 5000 else {},
        targets={"torchvision": 5.0, "mmdet": 10.0} if count >= 500 else {"torchvision": 1.0, "mmdet": 1.0},
        max_memory=256 * 2**20,
    )


ROWS = {
    "max_iou_2": max_iou(2),
    "max_iou_50": max_iou(50),
    "max_iou_500": max_iou(500),
    "max_iou_2000": max_iou(2000),
    "max_iou_5000": max_iou(5000),
    "max_iou_50_batch_1": max_iou(50, batch=1),
    "max_iou_50_batch_8": max_iou(50, batch=8),
} | {
    f"atss_{count}": Row(
        f"ATSS assignment, 2 x {scene.PRIORS // 9:,} priors, {count} ground truths each",
        {"detcore": functools.partial(models.kept, detcore, "ATSSAssigner", count, 2)},
        max_memory=256 * 2**20,
    )
    for count in (2, 50, 500, 2000, 5000)
}
