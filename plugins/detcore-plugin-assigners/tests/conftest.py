"""Scenes for assigners: a grid of priors and ground truths with many ties."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from detcore.structures import Predictions, PriorLevel, Priors, Targets

torch.set_num_threads(1)  # tensors this small lose more to waking threads than they gain


def _grid(levels=((8, 6, 3, 8), (4, 3, 3, 16), (2, 2, 3, 32))):
    boxes, strides = [], []
    for h, w, per_cell, stride in levels:
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        centers = (torch.stack((x, y), -1).reshape(-1, 1, 2) * stride).float()
        ratios = torch.tensor([[1.0, 1.0], [1.5, 0.75], [0.75, 1.5]])[:per_cell] * stride * 2
        cell = torch.cat((centers - ratios / 2, centers + ratios / 2), dim=-1)
        boxes.append(cell.reshape(-1, 4))
        strides.append(torch.full((h * w * per_cell, 2), float(stride)))
    described = tuple(PriorLevel(h, w, a, (float(s), float(s))) for h, w, a, s in levels)
    return Priors(torch.cat(boxes), torch.cat(strides), described)


def _image(count, ignored=0, seed=0, priors=None):
    """``count`` boxes with integer corners, some of them copies of priors or of each other, and regions."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(-6, 50, (count + ignored, 2), generator=generator).float()
    sizes = torch.randint(4, 40, (count + ignored, 2), generator=generator).float()
    boxes = torch.cat((corners, corners + sizes), dim=-1)
    if priors is not None and count >= 4:
        boxes[0] = priors.boxes[20]
        boxes[1] = boxes[2]
    order = torch.randperm(count + ignored, generator=generator)  # regions stand among the ground truths
    labels = torch.randint(0, 5, (count + ignored,), generator=generator)
    return {
        "boxes": boxes[order],
        "labels": labels,
        "ignore": (torch.arange(count + ignored) >= count)[order],
    }


class _Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation gave."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            # an expanded view has no memory of its own
            if isinstance(tensor, torch.Tensor) and tensor.is_contiguous():
                self.elements = max(self.elements, tensor.numel())
        return result


def _predicted(priors, targets, seed=0):
    """Boxes that have learned something: near the priors, a third of them near some ground truth of the image."""
    generator = torch.Generator().manual_seed(seed)
    images, count = len(targets), len(priors)
    noise = torch.randn(images, count, 4, generator=generator)
    row = torch.randint(0, targets.boxes.shape[1], (images, count), generator=generator)
    gts = targets.boxes.gather(1, row[..., None].expand(-1, -1, 4))
    lucky = (torch.rand(images, count, 1, generator=generator) < 0.3) & (gts[..., 2:3] > gts[..., :1])
    boxes = torch.where(lucky, gts, priors.per_image(images)) + 2 * noise
    boxes = torch.cat((boxes[..., :2], torch.maximum(boxes[..., 2:], boxes[..., :2] + 1)), dim=-1)
    return Predictions(torch.randn(images, count, 5, generator=generator), boxes)


@pytest.fixture
def predicted():
    return _predicted


@pytest.fixture
def predictions(priors, targets):
    return _predicted(priors, targets)


@pytest.fixture
def grid():
    return _grid


@pytest.fixture
def image():
    return _image


@pytest.fixture
def largest():
    return _Largest


@pytest.fixture
def priors():
    return _grid()


@pytest.fixture
def targets(priors):
    """Five images of very different content: two sorts of empty ones among them."""
    return Targets.stack(
        [
            _image(6, 2, seed=1, priors=priors),
            _image(0),
            _image(9, 0, seed=2, priors=priors),
            _image(0, 3, seed=3),
            _image(1, 1, seed=4),
        ]
    )


@pytest.fixture
def single():
    """One image of a batch, without its padding."""

    def take(targets, i):
        kept = targets.valid[i]
        image = {name: getattr(targets, name)[i][kept] for name in ("boxes", "labels", "ignore")}
        return Targets.stack([image])

    return take


@pytest.fixture
def same():
    """Whether two assignments are equal to the bit."""

    def check(a, b):
        assert torch.equal(a.state, b.state)
        assert torch.equal(a.gt_index, b.gt_index)
        assert torch.equal(a.quality, b.quality)

    return check
