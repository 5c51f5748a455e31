"""A detector composed in Python, trained by a plain PyTorch loop on generated pictures: no trainer, no files.

Run ``python examples/compose.py``; it takes a few seconds.
"""

from __future__ import annotations

import argparse
import time

import torch
from detcore_fpn import FPN
from detcore_losses import GIoULoss
from detcore_resnet import ResNet
from detcore_retina import RetinaHead
from torch import Tensor
from torchvision.ops import box_iou

from detcore import ClassMap, SingleStageDetector
from detcore.interfaces import Detector

CLASSES = ClassMap(("red", "green", "blue"))
SIZE = 64


def compose() -> SingleStageDetector:
    """The detector. Channels, strides and the number of classes are told once, or not at all."""
    model = SingleStageDetector(
        num_classes=len(CLASSES),
        backbone=ResNet(depth=18, base_channels=16),
        neck=FPN.spec(out_channels=32, start_level=1, num_outs=3),
        head=RetinaHead.spec(feat_channels=32, stacked_convs=1, loss_bbox=GIoULoss(loss_weight=2.0)),
    )
    model.class_map = CLASSES
    return model


def picture(generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """A noisy grey image [3, H, W] with one to three coloured boxes in it, and what is in it."""
    image = torch.randint(90, 140, (3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    count = int(torch.randint(1, 4, (), generator=generator))
    boxes, labels = [], []
    for _ in range(count):
        w, h = torch.randint(16, 34, (2,), generator=generator).tolist()
        x, y = (int(torch.randint(0, SIZE - side, (), generator=generator)) for side in (w, h))
        label = int(torch.randint(len(CLASSES), (), generator=generator))
        image[:, y : y + h, x : x + w] = 30
        image[label, y : y + h, x : x + w] = 230
        boxes.append([x, y, x + w, y + h])
        labels.append(label)
    return image, {"boxes": torch.tensor(boxes, dtype=torch.float32), "labels": torch.tensor(labels)}


def train(model: Detector, steps: int, batch_size: int = 8) -> None:
    """The whole training: a loss is a dict of scalars, and its total has a backward pass."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    model.train()
    for step in range(steps):
        images, targets = zip(*(picture(generator) for _ in range(batch_size)), strict=True)
        losses = model(images, targets)
        optimizer.zero_grad()
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 19:
            print(f"step {step + 1:3d}  " + "  ".join(f"{k} {v.item():.3f}" for k, v in losses.items()))


def recall(model: Detector, pictures: int = 32) -> float:
    """The part of unseen boxes that are found: same class, IoU above one half, score above 0.3."""
    generator = torch.Generator().manual_seed(1)
    images, targets = zip(*(picture(generator) for _ in range(pictures)), strict=True)
    model.eval()
    with torch.inference_mode():
        detections = model(images).unpad()
    found = total = 0
    for ours, truth in zip(detections, targets, strict=True):
        same = truth["labels"][:, None] == ours.labels
        hit = (box_iou(truth["boxes"], ours.boxes) > 0.5) & same & (ours.scores > 0.3)
        found, total = found + int(hit.any(1).sum()), total + len(hit)
    return found / total


def run(model: Detector, description: str) -> None:
    """Trains and tests, for as many steps as the command line says."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps")
    steps = parser.parse_args().steps
    torch.set_num_threads(1)  # tensors this small lose more to waking threads than they gain
    started = time.perf_counter()
    train(model, steps)
    found = recall(model)
    print(f"found {found:.0%} of the boxes in unseen pictures, after {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    torch.manual_seed(0)
    run(compose(), "Composes a small RetinaNet and trains it on generated pictures.")
