"""From scores to detections, without the network."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from bench.row import Row
from bench.rows import models, scene

BATCH = 2


def outputs() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [B, N, K] of which one in three hundred is above the threshold, and codes [B, N, 4]."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(BATCH, scene.PRIORS, scene.CLASSES, generator=generator) * 1.5 - 7
    codes = torch.randn(BATCH, scene.PRIORS, 4, generator=generator) * 0.2
    return logits.to(scene.device()), codes.to(scene.device())


def detcore() -> Callable[[], Any]:
    """RetinaHead's prediction."""
    from detcore.structures import DenseOutput, ImageBatch, LevelShape

    head = models.detcore_retinanet().head
    logits, codes = outputs()
    output = DenseOutput(tuple(LevelShape(*level) for level in scene.LEVELS), logits, codes)
    sizes = [scene.SIZE] * BATCH
    batch = ImageBatch.of(torch.zeros(BATCH, 3, *scene.SIZE, device=scene.device()), sizes, sizes)
    return torch.inference_mode()(lambda: head.predict(output, batch).unpad())  # type: ignore[union-attr,operator]


def torchvision() -> Callable[[], Any]:
    """The same step of torchvision's RetinaNet."""
    from torchvision.models.detection.image_list import ImageList

    model = models.torchvision_retinanet(scene.SIZE)
    model.detections_per_img = 100
    logits, codes = outputs()
    pixels = torch.zeros(BATCH, 3, *scene.SIZE, device=scene.device())
    maps = [torch.zeros(BATCH, 1, *level, device=scene.device()) for level in scene.LEVELS]
    images = ImageList(pixels, [scene.SIZE] * BATCH)
    counts = [9 * h * w for h, w in scene.LEVELS]

    @torch.inference_mode()
    def predict() -> Any:
        anchors = [a.split(counts) for a in model.anchor_generator(images, maps)]  # type: ignore[operator,union-attr]
        found = {"cls_logits": logits.split(counts, 1), "bbox_regression": codes.split(counts, 1)}
        return model.postprocess_detections(found, anchors, images.image_sizes)  # type: ignore[operator]

    return predict


ROWS = {
    "dense": Row(
        f"post-processing, {BATCH} x {scene.PRIORS:,} priors x {scene.CLASSES} classes",
        {"detcore": functools.partial(models.kept, detcore), "torchvision": torchvision},
        targets={"torchvision": 3.0},
        why="Half of the time goes into the sigmoid of every logit, which both compute; only candidates need it.",
    )
}
