"""Dense heads."""

from __future__ import annotations

from typing import Any

from detcore_mmdet.families import shared
from detcore_mmdet.families.postprocess import nms_postprocess
from detcore_mmdet.options import Options, Translator

_RETINA_ANCHORS = {
    "type": "AnchorGenerator",
    "octave_base_scale": 4,
    "scales_per_octave": 3,
    "ratios": [0.5, 1.0, 2.0],
    "strides": [8, 16, 32, 64, 128],
}
_CROSS_ENTROPY = {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 1.0}
_SMOOTH_L1 = {"type": "SmoothL1Loss", "beta": 1 / 9, "loss_weight": 1.0}


def retina_head(o: Options) -> dict[str, Any]:
    """RetinaHead."""
    result = {"type": "RetinaHead", **_alone(o, _RETINA_ANCHORS["strides"])}
    result |= o.same("feat_channels", "stacked_convs")
    result |= _norm_without_groups(o)
    shared.plain_convolutions(o)
    result["prior_generator"] = o.part("anchor_generator", "prior_generator", default=_RETINA_ANCHORS)
    result["bbox_coder"] = o.part("bbox_coder", default={"type": "DeltaXYWHBBoxCoder"})
    result["loss_cls"] = o.part("loss_cls", default=_CROSS_ENTROPY)
    result["loss_bbox"] = o.part("loss_bbox", default=_SMOOTH_L1)
    result |= o.same("reg_decoded_bbox")
    result |= anchor_training(o)
    result["postprocess"] = nms_postprocess(o.test_cfg())
    return result


def anchor_training(o: Options) -> dict[str, Any]:
    """``train_cfg`` of heads with anchors: assigner, sampler, border and weight of positives."""
    train = o.train_cfg()
    result: dict[str, Any] = {}
    for name in ("assigner", "sampler"):
        if train.has(name):
            result[name] = train.placed(o.place).part(name)
    border, weight = train.take("allowed_border", -1), train.take("pos_weight", -1)
    result |= {"allowed_border": border} if border >= 0 else {}
    result |= {"pos_weight": weight} if weight > 0 else {}
    train.ignore("debug", "the reference does nothing with it")
    return result


def _alone(o: Options, strides: Any) -> dict[str, Any]:
    """What a detector supplies, for a head without one: classes, channels, strides."""
    classes = o.take("num_classes")
    generator = o.data.get("anchor_generator") or {}
    features = shared.in_features(o, generator.get("strides", strides))
    if not o.alone:
        return {}
    return {**features, **({} if classes is None else {"num_classes": classes})}


def _norm_without_groups(o: Options) -> dict[str, Any]:
    """``norm_cfg`` of heads whose GN has the usual 32 groups."""
    result = shared.norm(o)
    groups = result.pop("num_groups", 32)
    if groups != 32:
        o.problem("norm_cfg.num_groups", f"{groups} groups have no counterpart in this head; only 32 have")
    return result


TRANSLATORS: dict[str, Translator] = {"RetinaHead": retina_head}
