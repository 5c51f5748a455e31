"""Ground truth that components must survive, by name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def ground_truths(
    size: tuple[int, int] = (96, 128), num_classes: int = 3
) -> dict[str, list[dict[str, Tensor]]]:
    """Ground truth of two images each, as :meth:`detcore.structures.Targets.stack` takes it.

    Args:
        size: (h, w) of the images, in pixels.
        num_classes: K.
    """
    height, width = size
    generator = torch.Generator().manual_seed(0)

    def image(boxes: list[list[float]] | Tensor, ignore: bool | list[bool] = False) -> dict[str, Any]:
        boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        labels = torch.arange(len(boxes)) % num_classes
        return {"boxes": boxes, "labels": labels, "ignore": torch.as_tensor(ignore).expand(len(boxes))}

    def scattered(count: int) -> Tensor:
        corners = torch.rand(2, count, 2, generator=generator) * torch.tensor([width, height])
        return torch.cat((corners.amin(0), corners.amax(0)), dim=1)

    small = [[8.0, 8.0, 40.0, 40.0], [30.0, 20.0, 70.0, 84.0]]
    return {
        "typical": [image(small), image([[16.0, 8.0, 120.0, 80.0]])],
        "none": [image([]), image([])],
        "none in one image": [image(small), image([])],
        "all ignored": [image(small, ignore=True), image(scattered(5), ignore=True)],
        "some ignored": [image(small, ignore=[False, True]), image([[0.0, 0.0, width, height]], ignore=True)],
        "without extent": [
            image([[20.0, 20.0, 20.0, 20.0], [5.0, 5.0, 5.0, 60.0]]),
            image([[9.0, 30.0, 90.0, 30.0]]),
        ],
        "tiny": [
            image([[20.0, 20.0, 20.01, 20.01]]),
            image([[0.0, 0.0, 1.0, 1.0], [64.0, 64.0, 64.5, 66.0]]),
        ],
        "outside": [image([[-50.0, -40.0, 30.0, 30.0]]), image([[width + 500.0, 10.0, width + 600.0, 80.0]])],
        "whole image": [image([[0.0, 0.0, width, height]]), image([[-8.0, -8.0, width + 8.0, height + 8.0]])],
        "duplicates": [image(small[:1] * 4), image(small * 2)],
        "many": [image(scattered(200)), image(scattered(60))],
    }
