"""Backbones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detcore_mmdet.families import blocks, shared
from detcore_mmdet.options import Options, Translator

_SAME = ("depth", "in_channels", "base_channels", "num_stages", "strides", "dilations", "out_indices",
         "style", "deep_stem", "avg_down", "frozen_stages", "zero_init_residual")  # fmt: skip


def resnet(o: Options) -> dict[str, Any]:
    """ResNet with BN, SyncBN or GN."""
    pretrained(o)
    result = {"type": "ResNet", **o.same(*_SAME), "norm_eval": o.take("norm_eval", True)}
    result |= shared.norm(o, default="BN", eps=True, requires_grad=True)
    base = result.get("base_channels", 64)
    o.only("stem_channels", base)
    o.ignore("with_cp", "gradient checkpointing saves memory, and changes no number")
    _leave_out_unused_stages(o, result)
    attached = blocks.placements(o, result.get("num_stages", 4))
    result |= {"blocks": attached} if attached else {}
    shared.plain_convolutions(o.replaced(dcn=None))
    return result


def resnet_v1d(o: Options) -> dict[str, Any]:
    """ResNet-D: a deep stem, average pooling in the shortcuts."""
    return {**resnet(o), "deep_stem": True, "avg_down": True}


def _leave_out_unused_stages(o: Options, result: dict[str, Any]) -> None:
    stages = result.get("num_stages", 4)
    needed = max(result.get("out_indices", range(stages)), default=stages - 1) + 1
    if not 0 < needed < stages:
        return
    for name, default in (("strides", (1, 2, 2, 2)), ("dilations", (1, 1, 1, 1))):
        result[name] = list(result.get(name, default))[:needed]
    result["num_stages"] = needed
    o.note("out_indices", f"stages after the {needed}. give nothing, and are left out")
    o.report.unused += [f"{o.path}.layer{i + 1}.".lstrip(".") for i in range(needed, stages)]


def pretrained(o: Options) -> None:
    """``init_cfg`` and ``pretrained``: where weights for training come from; a checkpoint replaces them."""
    init, address = o.take("init_cfg"), o.take("pretrained")
    first = init[0] if isinstance(init, list) and init else init
    if isinstance(first, Mapping) and first.get("type") == "Pretrained":
        address = first.get("checkpoint", address)
        if first.get("prefix"):
            o.note(
                "init_cfg.prefix", f"{first['prefix']!r}: give it to detcore.weights.load_weights as `prefix`"
            )
    elif init:
        o.note("init_cfg", "initial weights are the component's own; a checkpoint replaces them")
    if isinstance(address, str):
        place = o.place or ""
        o.report.weights[place] = address
        o.note("init_cfg", f"pretrained weights {address!r} are for training; the import leaves them out")


TRANSLATORS: dict[str, Translator] = {"ResNet": resnet, "ResNetV1d": resnet_v1d}
