"""Dense heads."""

from __future__ import annotations

from typing import Any

from detcore_mmdet.families import shared
from detcore_mmdet.families.postprocess import level_nms, nms_postprocess
from detcore_mmdet.options import Options, Translator

_RETINA_ANCHORS = {
    "type": "AnchorGenerator",
    "octave_base_scale": 4,
    "scales_per_octave": 3,
    "ratios": [0.5, 1.0, 2.0],
    "strides": [8, 16, 32, 64, 128],
}
#: The default of the reference's heads with anchors.
_ANCHORS = {
    "type": "AnchorGenerator",
    "scales": [8, 16, 32],
    "ratios": [0.5, 1.0, 2.0],
    "strides": [4, 8, 16, 32, 64],
}
_CROSS_ENTROPY = {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 1.0}
_SMOOTH_L1 = {"type": "SmoothL1Loss", "beta": 1 / 9, "loss_weight": 1.0}


def retina_head(o: Options) -> dict[str, Any]:
    """RetinaHead."""
    result = {"type": "RetinaHead", **_alone(o, _RETINA_ANCHORS["strides"])}
    result |= o.same("feat_channels", "stacked_convs")
    result |= shared.norm(o)
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


def atss_head(o: Options) -> dict[str, Any]:
    """ATSSHead."""
    result = {"type": "ATSSHead", **_alone(o, _ANCHORS["strides"])}
    result |= o.same("feat_channels", "stacked_convs", "pred_kernel_size")
    result |= {"norm": None} | shared.norm(o, default="GN")
    shared.plain_convolutions(o)
    result |= _anchor_parts(o)
    result["loss_centerness"] = o.part("loss_centerness", default=_CROSS_ENTROPY)
    result["reg_decoded_bbox"] = o.take("reg_decoded_bbox", True)
    result |= anchor_training(o)
    result["postprocess"] = nms_postprocess(o.test_cfg())
    return result


def rpn_head(o: Options) -> dict[str, Any]:
    """RPNHead."""
    o.only("num_classes", 1)
    result = {"type": "RPNHead", **_alone(o, _ANCHORS["strides"])}
    result.pop("num_classes", None)
    result |= o.same("feat_channels", "num_convs") | _anchor_parts(o) | o.same("reg_decoded_bbox")
    result |= anchor_training(o)
    if o.test_cfg().data:
        result["postprocess"] = level_nms(o.test_cfg())
    return result


def _anchor_parts(o: Options) -> dict[str, Any]:
    """The parts of a head with anchors, with the reference's defaults."""
    return {
        "prior_generator": o.part("anchor_generator", "prior_generator", default=_ANCHORS),
        "bbox_coder": o.part("bbox_coder", default={"type": "DeltaXYWHBBoxCoder"}),
        "loss_cls": o.part("loss_cls", default=_CROSS_ENTROPY),
        "loss_bbox": o.part("loss_bbox", default=_SMOOTH_L1),
    }


TRANSLATORS: dict[str, Translator] = {"ATSSHead": atss_head, "RetinaHead": retina_head, "RPNHead": rpn_head}
