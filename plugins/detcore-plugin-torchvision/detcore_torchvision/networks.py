"""Preprocessing, backbone and pyramid of a torchvision model as detcore's configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from detcore_torchvision.problems import Findings

Config = dict[str, Any]

_DEPTHS = {
    (BasicBlock, (2, 2, 2, 2)): 18,
    (BasicBlock, (3, 4, 6, 3)): 34,
    (Bottleneck, (3, 4, 6, 3)): 50,
    (Bottleneck, (3, 4, 23, 3)): 101,
    (Bottleneck, (3, 8, 36, 3)): 152,
}
#: What detcore's layers have.
_EPS = 1e-5


def preprocessor_of(transform: Any, findings: Findings) -> Config:
    """Normalisation, resizing, padding."""
    if not findings.is_a("transform", transform, GeneralizedRCNNTransform):
        return {}
    if transform.fixed_size is not None:
        findings.problem("transform.fixed_size", "resizing to a fixed size has no counterpart")
    if len(transform.min_size) > 1:
        findings.note(
            "transform.min_size",
            f"{list(transform.min_size)}: one is chosen at random in training; use MultiScaleResize in the data",
        )
    return {
        "type": "ImagePreprocessor",
        "mean": [round(value * 255, 6) for value in transform.image_mean],
        "std": [round(value * 255, 6) for value in transform.image_std],
        "size_divisor": int(transform.size_divisible),
        "min_size": int(transform.min_size[-1]),
        "max_size": int(transform.max_size),
    }


# ------------------------------------------------------------------------------------------------- backbone


def backbone_of(model: Any, findings: Findings) -> tuple[Config, Config]:
    """Backbone and neck."""
    backbone = model.backbone
    if not findings.is_a("backbone", backbone, BackboneWithFPN):
        return {}, {}
    body = backbone.body
    stages = [body[f"layer{i}"] for i in range(1, 5) if f"layer{i}" in body] if "conv1" in body else []
    if not stages:
        what = "only ResNet is translated: detcore has no counterpart of this network (MobileNet?) yet"
        findings.problem("backbone.body", f"has the layers {list(body)[:6]}; {what}")
        return {}, _neck_of(backbone.fpn, findings)
    _check_blocks(stages, findings)
    lengths, block = tuple(len(stage) for stage in stages), type(stages[0][0])
    depth = next(
        (d for (kind, all_), d in _DEPTHS.items() if kind is block and all_[: len(lengths)] == lengths), 0
    )
    if not depth:
        findings.problem("backbone.body", f"{block.__name__} {list(lengths)} is no ResNet that detcore has")
    config: Config = {
        "type": "ResNet",
        "depth": depth,
        "out_indices": [int(name.removeprefix("layer")) - 1 for name in body.return_layers],
        "frozen_stages": _frozen(body, stages, findings),
        "zero_init_residual": False,
        **_norm_of(body, findings),
    }
    if len(stages) < 4:
        config |= {
            "num_stages": len(stages),
            "strides": [1, 2, 2, 2][: len(stages)],
            "dilations": [1] * len(stages),
        }
    return config, _neck_of(backbone.fpn, findings)


def _check_blocks(stages: Sequence[nn.Module], findings: Findings) -> None:
    """Refuses what only looks like a ResNet: groups (ResNeXt), wide blocks, dilations."""
    for number, stage in enumerate(stages, 1):
        path, first = f"backbone.body.layer{number}", stage[0]  # type: ignore[index]
        if not findings.is_a(path, first, BasicBlock, Bottleneck):
            continue
        width = 64 * 2 ** (number - 1)
        if first.conv2.groups != 1 or first.conv2.out_channels != width:
            findings.problem(path, "ResNeXt and wide ResNets have no counterpart in detcore's ResNet yet")
        inner = first.conv2 if isinstance(first, Bottleneck) else first.conv1
        if inner.stride != ((1, 1) if number == 1 else (2, 2)) or inner.dilation != (1, 1):
            findings.problem(path, "stages with dilation in the place of a stride are not translated")


def _norm_of(body: nn.Module, findings: Findings) -> Config:
    norms = [
        m for m in body.modules() if isinstance(m, (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d))
    ]
    kind = findings.same("backbone.body", (type(norm) for norm in norms), "the normalisation")
    eps = findings.same("backbone.body", (float(norm.eps) for norm in norms), "eps")
    if kind is FrozenBatchNorm2d:
        return {"norm": "BN", "norm_eps": eps, "norm_eval": True, "norm_requires_grad": False}
    return {"norm": "SyncBN" if kind is nn.SyncBatchNorm else "BN", "norm_eps": eps}


def _frozen(body: Mapping[str, nn.Module], stages: Sequence[nn.Module], findings: Findings) -> int:
    """Detcore's ``frozen_stages`` for the parameters that are not trained."""
    convs = [body["conv1"], *stages]
    trained = [any(_weights_trained(part)) for part in convs]
    frozen = trained.index(True) if True in trained else len(trained)
    if not all(trained[frozen:]):
        findings.note("backbone.body", "stages behind trained ones are frozen; here they are trained")
    if frozen and any(isinstance(m, nn.BatchNorm2d) for part in convs for m in part.modules()):
        findings.note(
            "backbone.body",
            "statistics of frozen stages follow the batches in torchvision's training; here they stay",
        )
    return frozen - 1


def _weights_trained(part: nn.Module) -> list[bool]:
    return [m.weight.requires_grad for m in part.modules() if isinstance(m, nn.Conv2d)]


# ------------------------------------------------------------------------------------------------------ neck


def _neck_of(fpn: Any, findings: Findings) -> Config:
    outer: Any = fpn.layer_blocks
    levels, extra = len(outer), fpn.extra_blocks
    config: Config = {"type": "FPN", "out_channels": outer[0][0].out_channels, "num_outs": levels}
    norm = norm_of_block("backbone.fpn", outer[0], findings)
    config |= norm
    if isinstance(extra, LastLevelMaxPool):
        config["num_outs"] = levels + 1
    elif isinstance(extra, LastLevelP6P7):
        config |= {
            "num_outs": levels + 2,
            "add_extra_convs": "on_output" if extra.use_P5 else "on_input",
            "relu_before_extra_convs": True,
        }
        if norm:
            findings.problem(
                "backbone.fpn", "P6 and P7 without the pyramid's normalisation are not translated"
            )
    elif extra is not None:
        findings.is_a("backbone.fpn.extra_blocks", extra, LastLevelMaxPool, LastLevelP6P7)
    return config


def norm_of_block(path: str, block: nn.Module, findings: Findings) -> Config:
    """The normalisation of a block of convolution, normalisation and activation; empty for none."""
    norms = [m for m in block.modules() if not isinstance(m, (nn.Conv2d, nn.ReLU)) and m is not block]
    if not norms:
        return {}
    norm = norms[0]
    if not findings.is_a(path, norm, nn.BatchNorm2d, nn.GroupNorm):
        return {}
    if norm.eps != _EPS:
        findings.problem(path, f"a normalisation with eps={norm.eps} has no counterpart, only {_EPS} has")
    return {"norm": "GN", "num_groups": norm.num_groups} if isinstance(norm, nn.GroupNorm) else {"norm": "BN"}
