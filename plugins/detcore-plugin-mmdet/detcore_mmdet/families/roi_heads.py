"""RoI heads and their parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detcore_mmdet.families import shared
from detcore_mmdet.families.backbones import pretrained
from detcore_mmdet.families.postprocess import nms_postprocess
from detcore_mmdet.options import Options, Translator

_BOX_CODER = {"type": "DeltaXYWHBBoxCoder", "target_stds": [0.1, 0.1, 0.2, 0.2]}
_CROSS_ENTROPY = {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0}
_SMOOTH_L1 = {"type": "SmoothL1Loss", "beta": 1.0, "loss_weight": 1.0}
_MASK_LOSS = {"type": "CrossEntropyLoss", "use_mask": True, "loss_weight": 1.0}
#: Cells of a region in C4 models, before the shared stage.
_C4_SIZE = 14
_BRANCHES = ("num_shared_convs", "num_shared_fcs", "num_cls_convs", "num_cls_fcs", "num_reg_convs",
             "num_reg_fcs", "conv_out_channels", "fc_out_channels")  # fmt: skip


def standard_roi_head(o: Options) -> dict[str, Any]:
    """StandardRoIHead; ground truths are added to the proposals here, not in the sampler."""
    train, test = o.train_cfg().placed(o.place), o.test_cfg()
    result: dict[str, Any] = {"type": "StandardRoIHead"}
    for name in ("bbox_roi_extractor", "shared_head", "bbox_head", "mask_roi_extractor", "mask_head"):
        if o.has(name):
            result[name] = o.part(name)
    for name in ("assigner", "sampler"):
        if train.has(name):
            result[name] = train.part(name)
    sampler = train.data.get("sampler")
    if isinstance(sampler, Mapping) and sampler.get("add_gt_as_proposals") is False:
        result["add_gt_as_proposals"] = False
    weight = train.take("pos_weight", -1)
    result |= {"pos_weight": weight} if weight > 0 else {}
    _mask_size(o, train)
    train.ignore("debug", "the reference does nothing with it")
    test.only("mask_thr_binary", 0.5)
    result["postprocess"] = nms_postprocess(test)
    return result


def pisa_roi_head(o: Options) -> dict[str, Any]:
    """PISARoIHead: StandardRoIHead with weights of samples and boxes, from ``train_cfg``."""
    result, train = {**standard_roi_head(o), "type": "PISARoIHead"}, o.train_cfg()
    for name, defaults in (("isr", {"k": 2, "bias": 0}), ("carl", {"k": 1, "bias": 0.2})):
        settings = train.options(name) if train.has(name) else None
        for key, value in defaults.items():
            if settings is not None:
                result[f"{name}_{key}"] = settings.take(key, value)
        if settings is None:
            train.take(name)
            result[f"{name}_k"] = None
    return result


def cascade_roi_head(o: Options) -> dict[str, Any]:
    """CascadeRoIHead: settings of training are one for each stage."""
    stages, test = _stages(o), o.test_cfg()
    result: dict[str, Any] = {"type": "CascadeRoIHead"}
    number = o.take("num_stages", len(stages))
    weights = list(o.take("stage_loss_weights", []))
    if len(weights) != number:
        o.problem("num_stages", f"{number} stages, and {len(weights)} stage_loss_weights", "make them agree")
    result["stage_loss_weights"] = weights
    for name in ("bbox_roi_extractor", "bbox_head", "mask_roi_extractor", "mask_head"):
        if o.has(name):
            result[name] = o.parts(name)
    for name in ("assigner", "sampler"):
        if all(stage.has(name) for stage in stages) and stages:
            result[name] = [stage.part(name) for stage in stages]
    added = [
        stage.data["sampler"].get("add_gt_as_proposals", True) for stage in stages if stage.has("sampler")
    ]
    if added and not all(added):
        result["add_gt_as_proposals"] = False
    weight = stages[0].take("pos_weight", -1) if stages else -1
    result |= {"pos_weight": weight} if weight > 0 else {}
    for stage in stages:
        stage.only("pos_weight", weight, remedy="give all stages the same")
        _mask_size(o, stage)
        stage.ignore("debug", "the reference does nothing with it")
        stage.finish()
    test.only("mask_thr_binary", 0.5)
    result["postprocess"] = nms_postprocess(test)
    return result


def _stages(o: Options) -> list[Options]:
    """The settings of each stage's training."""
    train = o.train_cfg()
    stages = train.take("stages", [])
    return [train.placed(o.place).nested(str(i), stage) for i, stage in enumerate(stages)]


def _mask_size(o: Options, train: Options) -> None:
    """Targets of masks are as large as the masks that the head gives."""
    extractor, head = (
        o.data.get("mask_roi_extractor") or o.data.get("bbox_roi_extractor"),
        o.data.get("mask_head"),
    )
    if not train.has("mask_size") or not isinstance(head, Mapping) or not isinstance(extractor, Mapping):
        train.take("mask_size")
        return
    upsampling = {"type": "deconv", "scale_factor": 2} | dict(head.get("upsample_cfg") or {})
    factor = upsampling["scale_factor"] if upsampling["type"] else 1
    size = extractor.get("roi_layer", {}).get("output_size", 7)
    sides = [factor * side for side in (size if isinstance(size, (list, tuple)) else (size, size))]
    train.only("mask_size", *({sides[0]} if len(set(sides)) == 1 else set()), sides)


def single_roi_extractor(o: Options) -> dict[str, Any]:
    """SingleRoIExtractor with RoIAlign."""
    layer = o.options("roi_layer")
    if layer.type != "RoIAlign":
        o.problem("roi_layer.type", f"{layer.type!r} has no counterpart in detcore; only 'RoIAlign' has")
        layer.take_all()
    result = {"type": "SingleRoIExtractor", **layer.same("output_size", "sampling_ratio", "aligned")}
    layer.only("pool_mode", "avg")
    layer.take("use_torchvision")
    result |= o.same("finest_scale")
    strides, channels = o.take("featmap_strides", []), o.take("out_channels")
    if o.data.get("aggregation") == "concat":
        channels //= len(strides)
    result["num_levels"] = len(strides)
    if o.alone:
        result["in_features"] = [{"channels": channels, "stride": stride} for stride in strides]
    else:
        o.report.channels[str(o.place)] = (channels,)
    return result


def generic_roi_extractor(o: Options) -> dict[str, Any]:
    """GenericRoIExtractor, without attention afterwards."""
    result = {**single_roi_extractor(o), "type": "GenericRoIExtractor", **o.same("aggregation")}
    pre = o.options("pre_cfg")
    if pre.data:
        result["pre_kernel_size"] = pre.take("kernel_size", 3)
        pre.only("padding", result["pre_kernel_size"] // 2)
        for name in ("in_channels", "out_channels", "inplace"):
            pre.take(name)
        if pre.type != "ConvModule":
            pre.problem("type", f"{pre.type!r} has no counterpart in detcore")
    o.only("post_cfg")
    return result


def convolutional_head(o: Options) -> dict[str, Any]:
    """ConvFCBBoxHead, and the plain BBoxHead, which has no layers."""
    result = {**_bbox_head(o), "type": "ConvFCBBoxHead", **o.same("with_avg_pool", *_BRANCHES)}
    return result | shared.norm(o)


def shared_2fc(o: Options) -> dict[str, Any]:
    """Shared2FCBBoxHead."""
    return {**_bbox_head(o), "type": "Shared2FCBBoxHead", **o.same("fc_out_channels")}


def shared_4conv1fc(o: Options) -> dict[str, Any]:
    """Shared4Conv1FCBBoxHead."""
    names = ("conv_out_channels", "fc_out_channels")
    return {**_bbox_head(o), "type": "Shared4Conv1FCBBoxHead", **o.same(*names), **shared.norm(o)}


def _bbox_head(o: Options) -> dict[str, Any]:
    """What all box heads have."""
    result = _owned(o, roi_feat_size=7)
    result["bbox_coder"] = o.part("bbox_coder", default=_BOX_CODER)
    result["loss_cls"] = o.part("loss_cls", default=_CROSS_ENTROPY)
    result["loss_bbox"] = o.part("loss_bbox", default=_SMOOTH_L1)
    result |= o.same("reg_class_agnostic", "reg_decoded_bbox")
    shared.plain_convolutions(o)
    o.only("with_cls", True)
    o.only("with_reg", True)
    if o.type != "ConvFCBBoxHead" and o.type != "BBoxHead":
        o.only("with_avg_pool", False)
    for name in ("reg_predictor_cfg", "cls_predictor_cfg"):
        o.only(name, {"type": "Linear"})
    o.only("predict_box_type", "hbox")
    return result


def _owned(o: Options, roi_feat_size: int) -> dict[str, Any]:
    """Channels, size and classes: supplied by the RoI head here, the reference states them."""
    stated = {
        "in_channels": o.take("in_channels", 256),
        "roi_feat_size": o.take("roi_feat_size", roi_feat_size),
        "num_classes": o.take("num_classes", 80),
    }
    return stated if o.alone else {}


def res_layer(o: Options) -> dict[str, Any]:
    """ResLayer as a shared head."""
    pretrained(o)
    result = {"type": "ResLayer", **o.same("depth", "stage", "stride", "dilation", "style")}
    result |= {"norm_eval": o.take("norm_eval", True)}
    result |= shared.norm(o, default="BN", eps=True, requires_grad=True)
    shared.plain_convolutions(o)
    o.ignore("with_cp", "gradient checkpointing saves memory, and changes no number")
    if o.alone:
        stage, block = result.get("stage", 3), 1 if result["depth"] < 50 else 4
        result["in_channels"] = 64 * 2 ** (stage - 1) * block if stage else 64
        result["roi_feat_size"] = _C4_SIZE
        o.note("", f"stand-alone: regions are taken to have {_C4_SIZE} x {_C4_SIZE} cells")
    return result


def fcn_mask_head(o: Options) -> dict[str, Any]:
    """FCNMaskHead."""
    result = {"type": "FCNMaskHead", **_owned(o, roi_feat_size=14)}
    result |= o.same("num_convs", "conv_kernel_size", "conv_out_channels", "class_agnostic")
    result |= shared.norm(o)
    shared.plain_convolutions(o)
    if o.has("upsample_cfg"):
        u = o.options("upsample_cfg")
        kind = u.take("type")
        result["upsample"] = kind
        if kind not in (None, "deconv", "nearest", "bilinear"):
            o.problem("upsample_cfg.type", f"the upsampling {kind!r} has no counterpart in detcore")
            u.take_all()
        result |= u.same("scale_factor") if kind else {}
        u.take("scale_factor")
    o.only("predictor_cfg", {"type": "Conv"})
    result["loss_mask"] = o.part("loss_mask", default=_MASK_LOSS)
    return result


TRANSLATORS: dict[str, Translator] = {
    "BBoxHead": convolutional_head,
    "CascadeRoIHead": cascade_roi_head,
    "ConvFCBBoxHead": convolutional_head,
    "FCNMaskHead": fcn_mask_head,
    "PISARoIHead": pisa_roi_head,
    "ResLayer": res_layer,
    "Shared2FCBBoxHead": shared_2fc,
    "Shared4Conv1FCBBoxHead": shared_4conv1fc,
    "GenericRoIExtractor": generic_roi_extractor,
    "SingleRoIExtractor": single_roi_extractor,
    "StandardRoIHead": standard_roi_head,
}
