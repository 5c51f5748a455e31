"""Faster R-CNN composed in Python, with another assigner, sampler and loss, trained on generated pictures.

Each part is an object or a spec in its typed place; one of them is a class of this file, registered nowhere.
Run ``python examples/faster_rcnn_compose.py``; it takes about a minute.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Annotated

import torch
from detcore_assigners import MaxIoUAssigner
from detcore_fpn import FPN
from detcore_losses import FocalLoss, GIoULoss
from detcore_rcnn import LevelNMSPostprocess, RPNHead, Shared2FCBBoxHead, SingleRoIExtractor, StandardRoIHead
from detcore_resnet import ResNet
from pydantic import Field
from torch import Tensor
from torchvision.ops import box_iou

from detcore import ClassMap, TwoStageDetector
from detcore.interfaces import Sampler
from detcore.interfaces.sampler import SamplingPredictions
from detcore.structures import Assignment, Sample

CLASSES = ClassMap(("red", "green", "blue"))
SIZE = 64


class HardestSampler(Sampler):
    """The regions that the head gets most wrong, positives and negatives alike.

    Shrivastava et al., "Training Region-based Object Detectors with Online Hard Example Mining"
    (arXiv:1604.03540), here without a quota for positives.

    Args:
        num: Regions per image.
    """

    def __init__(self, *, num: Annotated[int, Field(ge=1)] = 32) -> None:
        self.num = num

    def sample(
        self,
        assignment: Assignment,
        *,
        predict: Callable[[], SamplingPredictions] | None = None,
        generator: torch.Generator | None = None,
    ) -> Sample:
        """See :class:`~detcore.interfaces.Sampler`."""
        if predict is None:
            raise ValueError("HardestSampler needs predictions; use it in a head that has them")
        takes_part = assignment.positive | assignment.negative
        losses = predict().losses.masked_fill(~takes_part, -1.0)
        hardest = losses.topk(min(self.num, losses.shape[1]), dim=1).indices
        chosen = torch.zeros_like(takes_part).scatter(1, hardest, True)
        return Sample(assignment.positive & chosen, assignment.negative & chosen)


def compose() -> TwoStageDetector:
    """The detector. Channels, strides and the number of classes are told once, or not at all."""
    model = TwoStageDetector(
        num_classes=len(CLASSES),
        backbone=ResNet(depth=18, base_channels=16),
        neck=FPN.spec(out_channels=32, num_outs=4),
        rpn_head=RPNHead.spec(
            feat_channels=32,
            loss_cls=FocalLoss(gamma=1.0),
            train_postprocess=LevelNMSPostprocess(nms_pre=200, max_per_img=64),
            postprocess=LevelNMSPostprocess(nms_pre=200, max_per_img=32),
        ),
        roi_head=StandardRoIHead.spec(
            bbox_roi_extractor=SingleRoIExtractor.spec(output_size=5, sampling_ratio=2, finest_scale=14),
            bbox_head=Shared2FCBBoxHead.spec(
                fc_out_channels=128, reg_class_agnostic=True, loss_bbox=GIoULoss(loss_weight=5.0)
            ),
            assigner=MaxIoUAssigner(
                pos_iou_thr=0.55, neg_iou_thr=(0.05, 0.5), min_pos_iou=0.55, match_low_quality=False
            ),
            sampler=HardestSampler(num=32),
        ),
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


def train(model: TwoStageDetector, steps: int, batch_size: int = 8) -> None:
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


def recall(model: TwoStageDetector, pictures: int = 32) -> float:
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


def main(steps: int = 200) -> float:
    """Composes, trains, tests."""
    torch.manual_seed(0)
    started = time.perf_counter()
    model = compose()
    train(model, steps)
    found = recall(model)
    print(f"found {found:.0%} of the boxes in unseen pictures, after {time.perf_counter() - started:.0f} s")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Composes a small Faster R-CNN and trains it on generated pictures."
    )
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # tensors this small lose more to waking threads than they gain
    main(arguments.steps)
