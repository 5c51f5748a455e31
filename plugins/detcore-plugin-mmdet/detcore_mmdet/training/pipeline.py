"""Pipelines of a dataset: what is done to an example before it reaches the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from detcore_mmdet.options import Options
from detcore_mmdet.training.augmentation import STEPS as AUGMENTATION

#: Steps that only move data about.
_FORMATTING = (
    "DefaultFormatBundle",
    "Collect",
    "PackDetInputs",
    "ImageToTensor",
    "ToTensor",
    "LoadImageFromWebcam",
)
#: What the reference's resizing does: no averaging over the pixels that are left out.
_RESIZING = {"antialias": False}


@dataclass
class Pipeline:
    """A translated pipeline.

    Args:
        transforms: Transforms of detcore.
        with_masks: Whether examples need instance masks.
    """

    transforms: list[dict[str, Any]] = field(default_factory=list)
    with_masks: bool = False


def pipeline_of(o: Options, name: str = "pipeline") -> Pipeline:
    """The pipeline in the option ``name``; steps without a counterpart are problems."""
    result = Pipeline()
    for step in _steps(o, o.take(name, []), name):
        if step.type == "LoadAnnotations":
            result.with_masks = bool(step.take("with_mask", False))
            step.only("with_seg", False)
            for option in (
                "with_bbox",
                "with_label",
                "poly2mask",
                "box_type",
                "backend_args",
                "file_client_args",
            ):
                step.take(option)
        elif step.type in _STEPS:
            result.transforms += _STEPS[step.type](step)
        elif step.type in _FORMATTING:
            step.take_all()
        else:
            step.problem("type", f"the step {step.type!r} has no counterpart in detcore, and is left out")
            step.take_all()
        step.finish()
    return result


def _steps(o: Options, steps: Any, path: str) -> Iterator[Options]:
    """The steps, those inside of the wrapper of older test pipelines included."""
    for i, step in enumerate(steps if isinstance(steps, (list, tuple)) else []):
        if not isinstance(step, Mapping):
            o.problem(f"{path}.{i}", f"expected a dict with 'type', got {step!r:.60}")
            continue
        s = o.nested(f"{path}.{i}", step)
        if s.type != "MultiScaleFlipAug":
            yield s
            continue
        scale = s.take("img_scale")
        s.only("flip", False, remedy="augmentation of tests has no counterpart")
        inner = [
            {"img_scale": scale, **one} if isinstance(one, Mapping) and one.get("type") == "Resize" else one
            for one in s.take("transforms", [])
            if not (isinstance(one, Mapping) and one.get("type") == "RandomFlip")
        ]
        yield from _steps(o, inner, f"{path}.{i}.transforms")
        s.finish()


def _load(s: Options) -> list[dict[str, Any]]:
    for option in ("to_float32", "color_type", "imdecode_backend", "backend_args", "file_client_args"):
        s.take(option)
    return []


def _resize(s: Options) -> list[dict[str, Any]]:
    scale = s.take("scale", s.take("img_scale"))
    keep = s.take("keep_ratio", "img_scale" in s.data)  # 2.x keeps it by default, 3.x does not
    _common(s)
    ratios, mode = s.take("ratio_range"), s.take("multiscale_mode", "range")
    factor = s.take("scale_factor")
    if factor is not None:
        s.problem("scale_factor", f"{factor!r} has no counterpart in detcore; give a scale")
        return []
    if scale is None:
        s.problem("scale", "is missing")
        return []
    several = isinstance(scale, (list, tuple)) and scale and isinstance(scale[0], (list, tuple))
    if ratios is not None or (several and len(scale) > 1):
        scales = [list(one) for one in scale] if several else [list(scale)]
        result = {"type": "MultiScaleResize", "scales": scales, "keep_ratio": keep, **_RESIZING}
        return [{**result, "ratio_range": list(ratios)} if ratios is not None else {**result, "mode": mode}]
    one = scale[0] if several else scale
    return [
        {
            "type": "Resize",
            "scale": list(one) if isinstance(one, (list, tuple)) else one,
            "keep_ratio": keep,
            **_RESIZING,
        }
    ]


def _random_resize(s: Options) -> list[dict[str, Any]]:
    scale, ratios = s.take("scale"), s.take("ratio_range")
    s.only("resize_type", "Resize")
    keep = s.take("keep_ratio", False)
    _common(s)
    several = isinstance(scale[0], (list, tuple))
    scales = [list(x) for x in scale] if several else [list(scale)]
    result: dict[str, Any] = {"type": "MultiScaleResize", "scales": scales, "keep_ratio": keep, **_RESIZING}
    return [{**result, "ratio_range": list(ratios)} if ratios is not None else {**result, "mode": "range"}]


def _choice_resize(s: Options) -> list[dict[str, Any]]:
    s.only("resize_type", "Resize")
    keep = s.take("keep_ratio", False)
    _common(s)
    scales = [list(scale) for scale in s.take("scales", [])]
    return [{"type": "MultiScaleResize", "scales": scales, "mode": "value", "keep_ratio": keep, **_RESIZING}]


def _common(s: Options) -> None:
    s.only("clip_object_border", True)
    s.only("interpolation", "bilinear")
    for option in ("backend", "override", "bbox_clip_border"):
        s.take(option)


def _flip(s: Options) -> list[dict[str, Any]]:
    prob = s.take("prob", s.take("flip_ratio"))
    direction = s.take("direction", "horizontal")
    if not prob:
        return []
    as_list = list(direction) if isinstance(direction, (list, tuple)) else direction
    return [
        {
            "type": "RandomFlip",
            "prob": list(prob) if isinstance(prob, (list, tuple)) else prob,
            "direction": as_list,
        }
    ]


def _normalize(s: Options) -> list[dict[str, Any]]:
    """Part of the model here."""
    s.take_all()
    return []


def _pad(s: Options) -> list[dict[str, Any]]:
    value = s.take("pad_val", 0)
    value = value.get("img", 0) if isinstance(value, Mapping) else value
    divisor, size, square = s.take("size_divisor"), s.take("size"), s.take("pad_to_square", False)
    if size is None and not square and value in (0, [0, 0, 0], (0, 0, 0)):
        return []  # the model pads its batches itself
    result: dict[str, Any] = {
        "type": "Pad",
        "pad_val": list(value) if isinstance(value, (list, tuple)) else value,
    }
    result |= {} if size is None else {"size": list(size)}
    return [
        result
        | ({} if divisor is None else {"size_divisor": divisor})
        | ({"pad_to_square": True} if square else {})
    ]


def _photometric(s: Options) -> list[dict[str, Any]]:
    names = ("brightness_delta", "contrast_range", "saturation_range", "hue_delta")
    return [{"type": "PhotometricDistortion", **s.same(*names)}]


_STEPS: dict[str, Callable[[Options], list[dict[str, Any]]]] = {
    **AUGMENTATION,
    "LoadImageFromFile": _load,
    "Normalize": _normalize,
    "Pad": _pad,
    "PhotoMetricDistortion": _photometric,
    "RandomChoiceResize": _choice_resize,
    "RandomFlip": _flip,
    "RandomResize": _random_resize,
    "Resize": _resize,
}
