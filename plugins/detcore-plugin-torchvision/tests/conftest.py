"""Models of torchvision with random weights that detect a lot, and comparison with what became of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import detection
from torchvision.models.detection import backbone_utils
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops import boxes as box_ops
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

#: Spread of what the predicting layers give, so that scores differ and boxes move.
SPREAD = {
    "head.classification_head.cls_logits": 1.5,
    "head.regression_head.bbox_reg": 0.4,
    "rpn.head.cls_logits": 2.0,
    "rpn.head.bbox_pred": 0.4,
    "roi_heads.box_predictor.cls_score": 1.5,
    "roi_heads.box_predictor.bbox_pred": 1.5,
    "roi_heads.mask_predictor.mask_fcn_logits": 2.0,
}
SIZES = {"min_size": 128, "max_size": 200}
#: Fewer proposals than usual: they are what takes the time.
FEW = {"rpn_pre_nms_top_n_test": 300, "rpn_post_nms_top_n_test": 120}


def fpn_r18(frozen: bool) -> nn.Module:
    return backbone_utils.resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=FrozenBatchNorm2d if frozen else nn.BatchNorm2d,
        trainable_layers=3,
    )


def retinanet_r18(num_classes: int = 91, **options) -> nn.Module:
    backbone = backbone_utils.resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=FrozenBatchNorm2d,
        trainable_layers=3,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    return detection.RetinaNet(backbone, num_classes, **options)


BUILDERS = {
    "retinanet_r18": retinanet_r18,
    "faster_rcnn_r18": lambda num_classes=91, **o: detection.FasterRCNN(fpn_r18(True), num_classes, **o),
    "mask_rcnn_r18": lambda num_classes=91, **o: detection.MaskRCNN(fpn_r18(False), num_classes, **o),
    "retinanet": lambda **o: detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None, **o),
    "retinanet_v2": lambda **o: detection.retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None, **o),
    "faster_rcnn": lambda **o: detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, **o),
    "faster_rcnn_v2": lambda **o: detection.fasterrcnn_resnet50_fpn_v2(
        weights=None, weights_backbone=None, **o
    ),
    "mask_rcnn": lambda **o: detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, **o),
    "mask_rcnn_v2": lambda **o: detection.maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, **o),
}


def images(*sizes: tuple[int, int], seed: int = 0) -> list[torch.Tensor]:
    """Noise of several scales, in 0..1."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for h, w in sizes:
        coarse = torch.rand((1, 3, h // 16 + 1, w // 16 + 1), generator=generator)
        smooth = nn.functional.interpolate(coarse, (h, w), mode="bilinear")[0]
        result.append((0.7 * smooth + 0.3 * torch.rand((3, h, w), generator=generator)).clamp(0, 1))
    return result


@torch.no_grad()
def enliven(model: nn.Module, seed: int = 0) -> nn.Module:
    """Statistics of real inputs in the normalisations, and predictions of a useful spread."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
        if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d, nn.GroupNorm)):
            module.weight.uniform_(0.6, 1.0, generator=generator)
            module.bias.normal_(0, 0.1, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            module.train()
            module.momentum = 0.7
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    sample = images((150, 190), (170, 150), seed=seed + 1)
    model(sample)
    model.eval()
    layers = dict(model.named_modules())
    for name, spread in SPREAD.items():
        if name not in layers:
            continue
        layer, seen = layers[name], []
        hook = layer.register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(out))
        model(sample)
        hook.remove()
        rows = torch.cat([out.transpose(0, 1).flatten(1) for out in seen], 1)  # by output channel
        factor = spread / rows.std(1).clamp(min=1e-6)
        layer.weight.mul_(factor.reshape(-1, *[1] * (layer.weight.dim() - 1)))
        layer.bias.copy_((layer.bias - rows.mean(1)) * factor)
        layer.bias.add_(torch.empty_like(layer.bias).normal_(0, 0.2, generator=generator))
        if name.endswith("classification_head.cls_logits"):
            layer.bias.sub_(4.0)
            outputs = layer.out_channels // 9
            layer.bias.view(9, outputs)[:, 0] = -50.0  # the background, which no training example raises
    return model


@pytest.fixture
def exact_nms(monkeypatch):
    """Suppression of torchvision without its shifting of boxes in float32, which decides near ties by chance."""
    monkeypatch.setattr(box_ops, "_batched_nms_coordinate_trick", box_ops._batched_nms_vanilla)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make():
    """Gives a lively model by name; each is made once for all tests, which must not change it."""
    made: dict[tuple, nn.Module] = {}

    def get(name: str, **options) -> nn.Module:
        key = (name, *sorted(options.items()))
        if key not in made:
            torch.manual_seed(3)
            few = {} if name.startswith("retinanet") else FEW
            few = {**few, "box_detections_per_img": 40} if name.startswith("mask") else few
            made[key] = enliven(BUILDERS[name](**{"num_classes": 91, **SIZES, **few, **options}))
        return made[key]

    return get


@pytest.fixture(scope="session")
def noise():
    """Makes images of given sizes."""
    return images


@pytest.fixture(scope="session")
def builders():
    """What makes each model, by name."""
    return BUILDERS
