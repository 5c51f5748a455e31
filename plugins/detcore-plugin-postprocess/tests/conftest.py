"""Scenes, and an implementation of each step that is too simple to be wrong."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import box_iou

from detcore.structures import ImageBatch


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
