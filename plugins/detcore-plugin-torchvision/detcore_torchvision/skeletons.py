"""The model that a state dict is of, as far as names and shapes tell it, with torchvision's default settings.

It is built by torchvision's own classes without storage, so that there is one way from a model to a configuration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models.detection import FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import AnchorGenerator, RPNHead
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from detcore_torchvision.description import MISSING
from detcore_torchvision.errors import TorchvisionImportError
from detcore_torchvision.names import anchors_per_cell, modern, outputs_of

#: Names that only one family has -> why it is not translated.
_OTHERS = (
    ("head.regression_head.bbox_ctrness.", MISSING["FCOS"]),
    ("head.classification_head.module_list.", MISSING["SSD"]),
    ("roi_heads.keypoint_head.", MISSING["KeypointRCNN"]),
)
_RESNETS: dict[tuple[int, ...], str] = {
    (2, 2, 2, 2, 2): "resnet18",
    (3, 4, 6, 3, 2): "resnet34",
    (3, 4, 6, 3, 3): "resnet50",
    (3, 4, 23, 3, 3): "resnet101",
    (3, 8, 36, 3, 3): "resnet152",
}
#: Stages that torchvision trains where the backbone is pretrained.
_TRAINED = ("layer2", "layer3", "layer4")
_LEVELS = 5


def is_detector(names: Mapping[str, Any]) -> bool:
    """Whether names of weights are those of a detector of torchvision with a feature pyramid."""
    return any(name.startswith("backbone.fpn.") for name in names)


def skeleton_of(weights: Mapping[str, Tensor], *, frozen_bn_eps: float | None = None) -> Any:
    """A model without storage that these weights fit.

    Args:
        weights: By torchvision's names.
        frozen_bn_eps: Makes the backbone's normalisation a frozen one with this number added to the
            variance; None tells from the weights whether it is frozen, with torchvision's default then.

    Raises:
        TorchvisionImportError: The names or shapes are of no model that is translated.
    """
    names = {modern(name): tuple(tensor.shape) for name, tensor in weights.items()}
    for prefix, reason in _OTHERS:
        if any(name.startswith(prefix) for name in names):
            raise TorchvisionImportError(f"weights named {prefix}* are not translated: {reason}")
    outputs = outputs_of(weights)
    if not is_detector(names) or outputs is None:
        shown = ", ".join(list(weights)[:3]) or "none"
        raise TorchvisionImportError(
            f"the weights (first: {shown}) are of no RetinaNet, Faster R-CNN or Mask R-CNN of torchvision with a "
            "feature pyramid; give the model itself, or the weights of one of these"
        )
    with torch.device("meta"):
        backbone = _backbone(names, frozen_bn_eps)
        if any(name.startswith("head.") for name in names):
            return _retinanet(names, backbone, outputs, anchors_per_cell(weights))
        return _two_stage(names, backbone, outputs)


def _backbone(names: Mapping[str, tuple[int, ...]], frozen_bn_eps: float | None) -> BackboneWithFPN:
    body = "backbone.body"
    if f"{body}.conv1.weight" not in names:
        raise TorchvisionImportError("backbone.body is no ResNet, the only network that is translated")
    counts = tuple(
        len({n.split(".")[3] for n in names if n.startswith(f"{body}.layer{i}.")}) for i in range(1, 5)
    )
    key: tuple[int, ...] = (*counts, 3 if f"{body}.layer1.0.conv3.weight" in names else 2)
    name = _RESNETS.get(key)
    if name is None or names[f"{body}.layer1.0.conv2.weight"][:2] != (64, 64):
        raise TorchvisionImportError(
            f"backbone.body has stages of {list(counts)} blocks, or groups: it is no ResNet that detcore has"
        )
    frozen = frozen_bn_eps is not None or f"{body}.bn1.num_batches_tracked" not in names
    norm = partial(FrozenBatchNorm2d, eps=1e-5 if frozen_bn_eps is None else frozen_bn_eps)
    network = getattr(resnet, name)(norm_layer=norm if frozen else nn.BatchNorm2d)
    for path, parameter in network.named_parameters():
        parameter.requires_grad_(path.startswith(_TRAINED))
    inner = sorted(
        {int(found[1]) for n in names if (found := re.match(r"backbone\.fpn\.inner_blocks\.(\d+)\.", n))}
    )
    channels = [names[f"backbone.fpn.inner_blocks.{i}.0.weight"][1] for i in inner]
    width = names["backbone.fpn.inner_blocks.0.0.weight"][0]
    p6 = names.get("backbone.fpn.extra_blocks.p6.weight")
    extra = LastLevelMaxPool() if p6 is None else LastLevelP6P7(p6[1], width)
    layers = {f"layer{5 - len(inner) + i}": str(i) for i in inner}
    norm_layer = nn.BatchNorm2d if "backbone.fpn.inner_blocks.0.1.weight" in names else None
    return BackboneWithFPN(network, layers, channels, width, extra_blocks=extra, norm_layer=norm_layer)


def _retinanet(
    names: Mapping[str, tuple[int, ...]], backbone: BackboneWithFPN, outputs: int, anchors: int
) -> Any:
    if anchors != 9:
        raise TorchvisionImportError(
            f"the weights are for {anchors} anchors in a cell, not the usual 9, so that they do not tell which: "
            "give the model itself"
        )
    grouped = "head.classification_head.conv.0.1.weight" in names
    norm = partial(nn.GroupNorm, 32) if grouped else None
    head = RetinaNetHead(backbone.out_channels, anchors, outputs, norm_layer=norm)
    if grouped:  # the improved recipe, which changed both
        head.regression_head._loss_type = "giou"
    return RetinaNet(backbone, outputs, head=head)


def _two_stage(names: Mapping[str, tuple[int, ...]], backbone: BackboneWithFPN, outputs: int) -> Any:
    anchors = names["rpn.head.cls_logits.weight"][0]
    if anchors != 3:
        raise TorchvisionImportError(
            f"the weights are for {anchors} anchors in a cell, not the usual 3, so that they do not tell which: "
            "give the model itself"
        )
    sizes = tuple((32 * 2**i,) for i in range(_LEVELS))
    generator = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * _LEVELS)
    depth = len({n.split(".")[3] for n in names if n.startswith("rpn.head.conv.")})
    options: dict[str, Any] = {
        "rpn_anchor_generator": generator,
        "rpn_head": RPNHead(backbone.out_channels, anchors, conv_depth=depth),
    }
    if "roi_heads.box_head.fc6.weight" not in names:
        options["box_head"] = _conv_fc_head(names, backbone.out_channels)
    if not any(name.startswith("roi_heads.mask_head.") for name in names):
        return FasterRCNN(backbone, outputs, **options)
    blocks = len({n.split(".")[2] for n in names if n.startswith("roi_heads.mask_head.")})
    widths = [names[f"roi_heads.mask_head.{i}.0.weight"][0] for i in range(blocks)]
    norm = nn.BatchNorm2d if "roi_heads.mask_head.0.1.weight" in names else None
    options["mask_head"] = MaskRCNNHeads(backbone.out_channels, widths, 1, norm_layer=norm)
    return MaskRCNN(backbone, outputs, **options)


def _conv_fc_head(names: Mapping[str, tuple[int, ...]], channels: int) -> FastRCNNConvFCHead:
    prefix = "roi_heads.box_head."
    convs = [s[0] for n, s in names.items() if re.fullmatch(rf"{re.escape(prefix)}\d+\.0\.weight", n)]
    layers = [s[0] for n, s in names.items() if re.fullmatch(rf"{re.escape(prefix)}\d+\.weight", n)]
    norm = nn.BatchNorm2d if f"{prefix}0.1.weight" in names else None
    return FastRCNNConvFCHead((channels, 7, 7), convs, layers, norm_layer=norm)
