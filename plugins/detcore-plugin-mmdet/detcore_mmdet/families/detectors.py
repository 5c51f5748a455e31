"""Detectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detcore_mmdet.families.backbones import pretrained
from detcore_mmdet.families.postprocess import level_nms
from detcore_mmdet.options import Options, Translator

#: Types that are nothing but a backbone, a neck and a dense head; what is special is in the head.
SINGLE_STAGE = ("SingleStageDetector", "RetinaNet", "ATSS", "AutoAssign", "DDOD", "FCOS", "FOVEA", "FSAF",
                "GFL", "NASFCOS", "PAA", "RepPointsDetector", "RTMDet", "TOOD", "VFNet", "YOLOF",
                "YOLOX")  # fmt: skip


def single_stage(o: Options) -> dict[str, Any]:
    """A detector of one stage."""
    train, test = o.options("train_cfg"), o.options("test_cfg")
    head = o.data.get("bbox_head")
    result: dict[str, Any] = {"type": "SingleStageDetector"}
    if isinstance(head, Mapping) and head.get("num_classes") is not None:
        result["num_classes"] = head["num_classes"]
    result["backbone"] = o.part("backbone")
    if o.has("neck"):
        result["neck"] = _neck(o)
    result["head"] = o.part("bbox_head", "head", train=train, test=test)
    result |= preprocessor(o)
    pretrained(o)
    o.report.modules += [("backbone", "backbone"), ("neck", "neck"), ("bbox_head", "head")]
    return result


def two_stage(o: Options) -> dict[str, Any]:
    """A detector of two stages."""
    train, test = o.options("train_cfg"), o.options("test_cfg")
    result: dict[str, Any] = {"type": "TwoStageDetector"}
    classes = _classes(o.data.get("roi_head"))
    result |= {} if classes is None else {"num_classes": classes}
    result["backbone"] = o.part("backbone")
    if o.has("neck"):
        result["neck"] = _neck(o)
    rpn = o.part("rpn_head", train=_of_stages(train, "rpn"), test=test.options("rpn"))
    result["rpn_head"] = rpn
    result["roi_head"] = o.part("roi_head", train=_of_stages(train, "rcnn"), test=test.options("rcnn"))
    proposals = train.options("rpn_proposal") if train.has("rpn_proposal") else test.options("rpn")
    if rpn is not None and proposals.data:
        rpn["train_postprocess"] = level_nms(proposals)
    result |= preprocessor(o)
    pretrained(o)
    o.report.modules += [(name, name) for name in ("backbone", "neck", "rpn_head", "roi_head")]
    return result


def _of_stages(train: Options, name: str) -> Options:
    """The part ``name`` of ``train_cfg``; cascades have a list, which their head finds under ``stages``."""
    stages = train.data.get(name)
    if not isinstance(stages, (list, tuple)):
        return train.options(name)
    train.take(name)
    return train.nested(name, {"stages": stages})


def _classes(roi_head: Any) -> int | None:
    """The number of classes that the box head states."""
    head = roi_head.get("bbox_head") if isinstance(roi_head, Mapping) else None
    head = head[0] if isinstance(head, (list, tuple)) and head else head
    return head.get("num_classes", 80) if isinstance(head, Mapping) else None


def rpn(o: Options) -> dict[str, Any]:
    """The first stage as a detector of its own."""
    train, test = o.options("train_cfg"), o.options("test_cfg")
    result: dict[str, Any] = {"type": "SingleStageDetector", "num_classes": 1, "backbone": o.part("backbone")}
    if o.has("neck"):
        result["neck"] = _neck(o)
    result["head"] = o.part("rpn_head", "head", train=_of_stages(train, "rpn"), test=test.options("rpn"))
    train.ignore("rpn_proposal", "there is no second stage")
    result |= preprocessor(o)
    pretrained(o)
    o.report.modules += [
        ("backbone", "backbone"),
        ("neck", "neck"),
        ("bbox_head", "head"),
        ("rpn_head", "head"),
    ]
    return result


def _neck(o: Options) -> Any:
    necks = o.data["neck"]
    if not isinstance(necks, (list, tuple)):
        return o.part("neck")
    o.take("neck")
    parts = [o.replaced(**{f"neck.{i}": neck}).part(f"neck.{i}", "neck") for i, neck in enumerate(necks)]
    if len(parts) != 1 and None not in parts:
        o.problem("neck", f"{len(parts)} necks in a row have no counterpart in detcore yet")
    return parts[0] if parts else None


def preprocessor(o: Options) -> dict[str, Any]:
    """``data_preprocessor``; the older dialect keeps those numbers in the pipeline of the data."""
    if o.has("data_preprocessor"):
        part = o.part("data_preprocessor", "preprocessor", implied="DetDataPreprocessor")
        return {} if part is None else {"preprocessor": part}
    o.take("data_preprocessor")
    o.note("data_preprocessor", "not given: images are normalised by ImagePreprocessor's defaults")
    return {}


TRANSLATORS: dict[str, Translator] = {
    **dict.fromkeys(SINGLE_STAGE, single_stage),
    **dict.fromkeys(("FasterRCNN", "MaskRCNN", "CascadeRCNN", "TwoStageDetector"), two_stage),
    "RPN": rpn,
}
