"""The same two detectors in both libraries: ResNet-50 with a pyramid, randomly initialised, 80 classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bench.rows import scene
from bench.rows.scene import CLASSES, device


def detcore_retinanet() -> nn.Module:
    """RetinaNet R50 of detcore."""
    from detcore_fpn import FPN
    from detcore_resnet import ResNet
    from detcore_retina import RetinaHead

    from detcore import SingleStageDetector

    model: nn.Module = SingleStageDetector(
        num_classes=CLASSES,
        backbone=ResNet(depth=50),
        neck=FPN.spec(start_level=1, num_outs=5, add_extra_convs="on_output"),
        head=RetinaHead.spec(),
    )
    return placed(spread(model, model.head.retina_cls))  # type: ignore[union-attr,arg-type]


def torchvision_retinanet(size: tuple[int, int], channels_last: bool = True) -> nn.Module:
    """RetinaNet R50 of torchvision, for images of (h, w) as they are; in its own memory format, or in ours."""
    from torchvision.models.detection import retinanet_resnet50_fpn

    model = retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=CLASSES, trainable_backbone_layers=5, **limits(size)
    )
    model.detections_per_img = 100  # as detcore
    return placed(spread(model, model.head.classification_head.cls_logits), channels_last)


def detcore_faster_rcnn() -> nn.Module:
    """Faster R-CNN R50 of detcore."""
    from detcore_fpn import FPN
    from detcore_rcnn import RPNHead, SingleRoIExtractor, StandardRoIHead
    from detcore_resnet import ResNet

    from detcore import TwoStageDetector

    model: nn.Module = TwoStageDetector(
        num_classes=CLASSES,
        backbone=ResNet(depth=50),
        neck=FPN.spec(num_outs=5),
        rpn_head=RPNHead.spec(),
        # as many samples as torchvision takes; the default takes as many as there are pixels
        roi_head=StandardRoIHead.spec(bbox_roi_extractor=SingleRoIExtractor.spec(sampling_ratio=2)),
    )
    return placed(model)


def torchvision_faster_rcnn(size: tuple[int, int], channels_last: bool = True) -> nn.Module:
    """Faster R-CNN R50 of torchvision, for images of (h, w) as they are; in its own memory format, or in ours."""
    from torchvision.models.detection import fasterrcnn_resnet50_fpn

    return placed(
        fasterrcnn_resnet50_fpn(
            weights=None, weights_backbone=None, num_classes=CLASSES + 1, trainable_backbone_layers=5,
            **limits(size),
        ),
        channels_last,
    )  # fmt: skip


def converted(build: Callable[..., nn.Module], size: tuple[int, int]) -> nn.Module:
    """torchvision's detector as one of detcore: the same weights, so the same proposals and detections."""
    from detcore_torchvision import from_torchvision

    return placed(from_torchvision(build(size)))


def limits(size: tuple[int, int]) -> dict[str, Any]:
    """The resizing that leaves an image of (h, w) as it is."""
    return {"min_size": min(size), "max_size": max(size)}


def spread(model: nn.Module, classifier: nn.Conv2d) -> nn.Module:
    """Logits of an untrained detector that leave as much work for what comes after in both libraries.

    On the finest level they get a standard deviation of 0.5 around -4.5, whatever the weights before: one in a thousand
    scores is above 0.05.
    """
    deviations: list[float] = []
    nn.init.constant_(classifier.bias, -20.0)  # type: ignore[arg-type]
    hook = classifier.register_forward_hook(lambda _, __, logits: deviations.append(float(logits.std())))
    with torch.no_grad():
        model.eval()([scene.image((240, 320), 0).cpu() / 255])
        classifier.weight *= 0.5 / deviations[0]
    hook.remove()
    nn.init.constant_(classifier.bias, -4.5)  # type: ignore[arg-type]
    return model.train()


def placed(model: nn.Module, channels_last: bool = True) -> nn.Module:
    """On the device, in the memory format that convolutions like best unless that is not wanted."""
    model.to(device())
    return model.to(memory_format=torch.channels_last) if channels_last else model  # type: ignore[call-overload,no-any-return]


def kept(prepare: Callable[..., Callable[[], Any]], *args: Any, **options: Any) -> Callable[[], Any]:
    """Prepares as detcore's commands do: freed memory stays with the process."""
    from detcore.allocator import keep_freed_memory

    keep_freed_memory()
    return prepare(*args, **options)
