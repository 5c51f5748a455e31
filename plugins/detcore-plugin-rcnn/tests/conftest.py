import pytest
import torch
from detcore_rcnn import RPNHead, Shared2FCBBoxHead, StandardRoIHead

from detcore.structures import FeatureSpec, ImageBatch, Proposals, Targets

PYRAMID = tuple(FeatureSpec(8, stride) for stride in (4, 8, 16, 32, 64))


@pytest.fixture
def pyramid():
    return PYRAMID


@pytest.fixture
def make_features():
    """Features and batch of ``count`` images of 96 x 128, the second one smaller."""

    def make_features(count=2, seed=0, height=96, width=128):
        torch.manual_seed(seed)
        sizes = [(height, width), (height // 2, width // 2)][:count] + [(height, width)] * (count - 2)
        batch = ImageBatch.of(torch.zeros(count, 3, height, width), sizes, sizes)
        shapes = [(-(-height // f.stride), -(-width // f.stride)) for f in PYRAMID]
        return tuple(torch.randn(count, 8, h, w) for h, w in shapes), batch

    return make_features


@pytest.fixture
def make_targets():
    """Ground truth with ``counts`` objects per image."""

    def make_targets(*counts, num_classes=5, seed=1, masks=False):
        generator = torch.Generator().manual_seed(seed)
        images = []
        for count in counts:
            corner = torch.rand(count, 2, generator=generator) * torch.tensor([40.0, 28.0])
            side = torch.rand(count, 2, generator=generator) * 20 + 4
            boxes = torch.cat((corner, corner + side), 1)
            images.append({"boxes": boxes, "labels": torch.arange(count) % num_classes})
            if masks:
                y, x = torch.arange(96)[:, None] + 0.5, torch.arange(128) + 0.5
                x1, y1, x2, y2 = boxes.T[..., None, None]
                images[-1]["masks"] = (x > x1) & (x < x2) & (y > y1) & (y < y2)
        return Targets.stack(images)

    return make_targets


@pytest.fixture
def make_proposals(make_targets):
    """``count`` random regions per image, and some close to the objects."""

    def make_proposals(targets, count=20, seed=3):
        generator = torch.Generator().manual_seed(seed)
        batch = len(targets)
        corner = torch.rand(batch, count, 2, generator=generator) * torch.tensor([40.0, 28.0])
        side = torch.rand(batch, count, 2, generator=generator) * 24 + 1
        near = targets.boxes + torch.rand(targets.boxes.shape, generator=generator) * 2
        boxes = torch.cat((near, torch.cat((corner, corner + side), -1)), 1)
        valid = torch.cat((targets.valid, torch.ones(batch, count, dtype=torch.bool)), 1)
        return Proposals(boxes, torch.rand(boxes.shape[:2], generator=generator), valid)

    return make_proposals


@pytest.fixture
def make_rpn(pyramid):
    def make_rpn(seed=0, **arguments):
        torch.manual_seed(seed)
        head = RPNHead(in_features=pyramid, feat_channels=8, **arguments)
        for layer in (head.rpn_cls, head.rpn_reg):
            torch.nn.init.normal_(layer.weight, std=0.3)
        return head

    return make_rpn


@pytest.fixture
def make_roi_head(pyramid):
    def make_roi_head(seed=0, **arguments):
        torch.manual_seed(seed)
        parts = {"bbox_head": Shared2FCBBoxHead.spec(fc_out_channels=16), **arguments}
        head = StandardRoIHead(in_features=pyramid, num_classes=5, **parts)
        torch.nn.init.normal_(head.bbox_head.fc_cls.weight, std=0.5)
        return head

    return make_roi_head
