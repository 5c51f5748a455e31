"""Prior generators."""

from __future__ import annotations

from typing import Any

from detcore.errors import join_path
from detcore_mmdet.options import Options, Translator


def anchor_generator(o: Options) -> dict[str, Any]:
    """AnchorGenerator; centres are offset as in the reference."""
    result = {"type": "AnchorGenerator"}
    result |= o.same(
        "ratios", "scales", "octave_base_scale", "scales_per_octave", "base_sizes", "scale_major", "centers"
    )
    if o.take("center_offset"):
        result |= {"center_offset": o.take("center_offset"), "center_offset_unit": "base_size"}
    _box_type(o)
    return result | _strides(o)


def point_generator(o: Options) -> dict[str, Any]:
    """MlvlPointGenerator."""
    _box_type(o)
    return {"type": "PointGenerator", **o.same("offset"), **_strides(o)}


def _strides(o: Options) -> dict[str, Any]:
    """The reference states strides; here a head supplies those of its pyramid, equal ones as a rule."""
    if not o.has("strides"):
        return {}
    if o.place is not None:
        o.report.wired.append(join_path(o.place, "strides"))
    return {"strides": [list(s) if isinstance(s, (list, tuple)) else s for s in o.take("strides")]}


def _box_type(o: Options) -> None:
    o.only("use_box_type", False)


TRANSLATORS: dict[str, Translator] = {
    "AnchorGenerator": anchor_generator,
    "MlvlPointGenerator": point_generator,
}
