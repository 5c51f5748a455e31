"""Blocks that are attached inside of networks."""

from __future__ import annotations

from typing import Any

from detcore_mmdet.families import shared
from detcore_mmdet.options import Options, Translator

#: What the reference calls its plugins among the weights of a residual block, but for ``postfix``.
_NAMES = {
    "ContextBlock": "context_block",
    "GeneralizedAttention": "gen_attention_block",
    "NonLocal2d": "nonlocal_block",
}


def _channels(o: Options, *names: str) -> dict[str, Any]:
    """Channels, stated by the reference for a block alone, and here by its owner."""
    stated = {name: o.take(name) for name in names}
    return {name: value for name, value in stated.items() if value is not None} if o.alone else {}


def context_block(o: Options) -> dict[str, Any]:
    """ContextBlock."""
    result = {"type": "ContextBlock", **_channels(o, "in_channels")}
    return result | o.same("ratio", "pooling_type", "fusion_types")


def generalized_attention(o: Options) -> dict[str, Any]:
    """GeneralizedAttention."""
    names = ("spatial_range", "num_heads", "position_embedding_dim", "position_magnitude", "kv_stride",
             "q_stride", "attention_type")  # fmt: skip
    result = {"type": "GeneralizedAttention", **_channels(o, "in_channels"), **o.same(*names)}
    kinds = result.get("attention_type", "1111")
    if kinds[1] == "1" and kinds[3] == "0":
        result["transposed_query"] = True
        o.note("attention_type", f"{kinds!r}: as in the reference, works on square feature maps only")
    return result


def non_local(o: Options) -> dict[str, Any]:
    """NonLocal2d."""
    result = {"type": "NonLocal2d", **_channels(o, "in_channels")}
    result |= o.same("reduction", "use_scale", "mode", "sub_sample", "zeros_init") | shared.norm(o)
    shared.plain_convolutions(o)
    return result


def deformable(o: Options) -> dict[str, Any]:
    """DCN and DCNv2, alone."""
    version = "DCNv2" if o.type in ("DCNv2", "ModulatedDeformConv2dPack") else "DCN"
    result = {"type": version, **_channels(o, "in_channels", "out_channels")}
    result |= o.same("kernel_size", "stride", "dilation", "groups", "deform_groups")
    result["bias"] = bool(o.take_raw("bias", version == "DCNv2"))
    o.only("padding", result.get("dilation", 1) * (result.get("kernel_size", 3) // 2))
    o.take("im2col_step")  # memory only
    return result


def se_layer(o: Options) -> dict[str, Any]:
    """SELayer."""
    result = {"type": "SELayer", **o.same("ratio")}
    channels = o.take("channels")
    result |= {"in_channels": channels} if o.alone else {}
    shared.plain_convolutions(o)
    given = o.take("act_cfg", [{"type": "ReLU"}, {"type": "Sigmoid"}])
    first, second = given if isinstance(given, (list, tuple)) else (given, given)
    gate = {"Sigmoid": "Sigmoid", "HSigmoid": "HardSigmoid"}.get(second.get("type"))
    plain = not ({*second} - {"type"}) or (second.get("bias") == 3.0 and second.get("divisor") == 6.0)
    if first.get("type") != "ReLU" or gate is None or not plain:
        o.problem("act_cfg", f"{given!r} has no counterpart in detcore; only ReLU before a sigmoid has")
        return result
    if gate == "HardSigmoid" and plain and "bias" not in second:
        o.problem("act_cfg", "HSigmoid without bias=3.0, divisor=6.0 has no counterpart in detcore")
    return {**result, "gate": gate}


def spp(o: Options) -> dict[str, Any]:
    """SPPBottleneck."""
    result = {"type": "SPP", **_channels(o, "in_channels", "out_channels"), **o.same("kernel_sizes")}
    norm = dict(o.take_raw("norm_cfg", {"type": "BN", "momentum": 0.03, "eps": 0.001}) or {})
    if norm.pop("momentum", 0.1) != 0.1:
        o.note("norm_cfg.momentum", "statistics follow at torch's 0.1 when it is trained further")
    result |= shared.norm(o.replaced(norm_cfg={"eps": 1e-5, **norm} if norm else None), eps=True)
    shared.plain_convolutions(o)
    activation = o.take("act_cfg", {"type": "Swish"}).get("type")
    found = {"Swish": "SiLU", "SiLU": "SiLU", "ReLU": "ReLU"}.get(activation)
    if found is None:
        o.problem("act_cfg", f"the activation {activation!r} has no counterpart in detcore")
    return {**result, "activation": found or "SiLU"}


def aspp(o: Options) -> dict[str, Any]:
    """ASPP of DetectoRS."""
    result = {"type": "ASPP", **_channels(o, "in_channels"), **o.same("dilations")}
    return result | ({"branch_channels": o.take("out_channels")} if o.has("out_channels") else {})


def drop_block(o: Options) -> dict[str, Any]:
    """DropBlock, which has no weights, and no channels in the reference."""
    result = {"type": "DropBlock", **o.same("drop_prob", "block_size", "warmup_iters")}
    if o.alone:
        result["in_channels"] = 1
    o.ignore("eps", "keeps a division from failing where everything is dropped; here nothing is scaled then")
    return result


# ---------------------------------------------------------------------------------------- inside of a ResNet


def placements(o: Options, num_stages: int) -> list[dict[str, Any]]:
    """``plugins``, ``dcn`` and ``stage_with_dcn`` of a ResNet as its ``blocks``.

    Args:
        o: The backbone's options.
        num_stages: How many stages are kept.
    """
    result = _deformable(o, num_stages)
    for index, plugin in enumerate(o.take("plugins", [])):
        p = o.nested(f"plugins.{index}", plugin)
        cfg = dict(p.take("cfg", {}))
        name, postfix = str(cfg.get("type", "")).rpartition(".")[2], cfg.pop("postfix", "")
        block = (
            p.placed(f"{o.place or ''}.blocks.{len(result)}".lstrip("."))
            .replaced(cfg=cfg)
            .part("cfg", "block")
        )
        stages = _chosen(p.take("stages"), num_stages)
        position = p.take("position", "after_conv3")
        p.finish()
        if block is not None and stages:
            name = f"{_NAMES.get(name, name.lower())}{postfix}"
            result.append({"block": block, "stages": stages, "position": position, "name": name})
    return result


def _chosen(flags: Any, num_stages: int) -> list[int]:
    return [i for i in range(num_stages) if flags is None or (i < len(flags) and flags[i])]


def _deformable(o: Options, num_stages: int) -> list[dict[str, Any]]:
    """``dcn``; the reference forgets ``fallback_on_stride`` after the first residual block that has read it."""
    stages = _chosen(o.take("stage_with_dcn", (False,) * 4), num_stages)
    if not o.has("dcn"):
        o.take("dcn")
        return []
    d = o.options("dcn")
    block = {"type": "DCNv2" if d.type in ("DCNv2", "ModulatedDeformConv2dPack") else "DCN"}
    if d.type not in ("DCN", "DCNv2", "DeformConv2dPack", "ModulatedDeformConv2dPack"):
        d.problem("type", f"the convolution {d.type!r} has no counterpart in detcore")
    block |= d.same("deform_groups")
    falls_back = d.take("fallback_on_stride", False)
    if not stages:
        return []
    if not falls_back:
        return [{"block": block, "stages": stages, "position": "conv2"}]
    d.note(
        "fallback_on_stride",
        "True counts for one block only in the reference, the first; set skip_first everywhere to mean it",
    )
    first, *others = stages
    result = [{"block": block, "stages": [first], "position": "conv2", "skip_first": True}]
    return result + ([{"block": dict(block), "stages": others, "position": "conv2"}] if others else [])


TRANSLATORS: dict[str, Translator] = {
    "ASPP": aspp,
    "ContextBlock": context_block,
    "DCN": deformable,
    "DCNv2": deformable,
    "DeformConv2dPack": deformable,
    "DropBlock": drop_block,
    "GeneralizedAttention": generalized_attention,
    "ModulatedDeformConv2dPack": deformable,
    "NonLocal2d": non_local,
    "SELayer": se_layer,
    "SPPBottleneck": spp,
}
