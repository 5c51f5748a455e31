"""Necks."""

from __future__ import annotations

from typing import Any

from detcore_mmdet.families import shared
from detcore_mmdet.options import Options, Translator


def fpn(o: Options) -> dict[str, Any]:
    """FPN."""
    result = {"type": "FPN", **shared.in_features(o)}
    result |= o.same(
        "out_channels",
        "num_outs",
        "start_level",
        "end_level",
        "relu_before_extra_convs",
        "no_norm_on_lateral",
    )
    result |= _extra_convs(o)
    result |= shared.norm(o)
    shared.plain_convolutions(o)
    name = shared.activation(o, default=None)
    result |= {} if name is None else {"activation": name}
    result |= _upsampling(o)
    _drop_idle(o, result, "relu_before_extra_convs", "add_extra_convs")
    _drop_idle(o, result, "no_norm_on_lateral", "norm")
    return result


def _extra_convs(o: Options) -> dict[str, Any]:
    """``add_extra_convs``; True meant "on_output" in the first 2.x with ``extra_convs_on_inputs=False``."""
    where, on_inputs = o.take("add_extra_convs", False), o.take("extra_convs_on_inputs", True)
    if where is True:
        where = "on_input" if on_inputs else "on_output"
    return {"add_extra_convs": where} if where else {}


def _upsampling(o: Options) -> dict[str, Any]:
    u = o.options("upsample_cfg")
    result = {"upsample_mode": u.take("mode")} if u.has("mode") else {}
    u.only("scale_factor", 2, remedy="levels of an FPN differ by 2")
    return result | u.same("align_corners")


def _drop_idle(o: Options, result: dict[str, Any], name: str, needs: str) -> None:
    """An option that does nothing without another, which is an error here."""
    if result.get(name) and not result.get(needs):
        del result[name]
        o.note(name, f"has no effect without {needs}, and is left out")


TRANSLATORS: dict[str, Translator] = {"FPN": fpn}
