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


def legacy_anchor_generator(o: Options) -> dict[str, Any]:
    """LegacyAnchorGenerator; its centres are offset only where the configuration says so."""
    result = {"type": "LegacyAnchorGenerator", "center_offset": o.take("center_offset", 0.0)}
    result |= o.same(
        "ratios", "scales", "octave_base_scale", "scales_per_octave", "base_sizes", "scale_major", "centers"
    )
    _box_type(o)
    return result | _strides(o)


def ssd_anchor_generator(o: Options) -> dict[str, Any]:
    """SSDAnchorGenerator and LegacySSDAnchorGenerator; the order within a cell is the reference's by default."""
    result = {"type": o.type, "scale_major": o.take("scale_major", True)}
    result |= o.same("ratios", "min_sizes", "max_sizes", "input_size", "basesize_ratio_range")
    _box_type(o)
    return result | _strides(o)


def yolo_anchor_generator(o: Options) -> dict[str, Any]:
    """YOLOAnchorGenerator."""
    _box_type(o)
    return {"type": "YOLOAnchorGenerator", **o.same("base_sizes"), **_strides(o)}


def single_point_generator(o: Options) -> dict[str, Any]:
    """PointGenerator, whose points are the corners of cells."""
    return {"type": "PointGenerator", "offset": 0.0}


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
    "LegacyAnchorGenerator": legacy_anchor_generator,
    "LegacySSDAnchorGenerator": ssd_anchor_generator,
    "MlvlPointGenerator": point_generator,
    "PointGenerator": single_point_generator,
    "SSDAnchorGenerator": ssd_anchor_generator,
    "YOLOAnchorGenerator": yolo_anchor_generator,
}
