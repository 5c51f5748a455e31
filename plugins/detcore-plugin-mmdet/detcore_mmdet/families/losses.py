"""Losses."""

from __future__ import annotations

from typing import Any

from detcore.errors import join_path
from detcore_mmdet.options import Options, Translator

_COMMON = ("reduction", "loss_weight")


def of_same_name(*names: str) -> Translator:
    """A loss whose name and parameters are those of the reference."""

    def translate(o: Options) -> dict[str, Any]:
        return {"type": o.type, **o.same(*names, *_COMMON)}

    return translate


def focal(o: Options) -> dict[str, Any]:
    """FocalLoss."""
    o.only("use_sigmoid", True)
    return {"type": "FocalLoss", **o.same("gamma", "alpha", "activated", *_COMMON)}


def cross_entropy(o: Options) -> dict[str, Any]:
    """CrossEntropyLoss; as loss of masks (``use_mask``) it is the sigmoid form on the chosen channel."""
    result = {
        "type": "CrossEntropyLoss",
        **o.same("use_sigmoid", "class_weight", "ignore_index", "avg_non_ignore", *_COMMON),
    }
    if o.take("use_mask"):
        result["use_sigmoid"] = True
        o.note("use_mask", "the sigmoid form; the mask head picks the channel of each mask's class")
    return result


def iou(o: Options) -> dict[str, Any]:
    """IoULoss; ``linear`` is the old way to say ``mode="linear"``."""
    result = {"type": "IoULoss", **o.same("mode", "eps", *_COMMON)}
    return {**result, "mode": "linear"} if o.take("linear") else result


def sigmoid_only(*names: str) -> Translator:
    """A loss that the reference, too, has on sigmoids only."""

    def translate(o: Options) -> dict[str, Any]:
        o.only("use_sigmoid", True)
        return {"type": o.type, **o.same(*names, *_COMMON)}

    return translate


def ghmc(o: Options) -> dict[str, Any]:
    """GHMC; the reference's moving averages begin at 0 and stay too small for a while."""
    o.only("use_sigmoid", True)
    return {**_harmonised(o), **o.same("bins", "momentum", *_COMMON)}


def ghmr(o: Options) -> dict[str, Any]:
    """GHMR; averages as in :func:`ghmc`."""
    return {**_harmonised(o), **o.same("mu", "bins", "momentum", *_COMMON)}


def _harmonised(o: Options) -> dict[str, Any]:
    return {"type": o.type, "bias_correction": False}


def balanced_l1(o: Options) -> dict[str, Any]:
    """BalancedL1Loss, whose slope in the reference jumps at a beta other than 1."""
    return {"type": "BalancedL1Loss", "smooth": False, **o.same("alpha", "gamma", "beta", *_COMMON)}


def dice(o: Options) -> dict[str, Any]:
    """DiceLoss; an activation is a sigmoid."""
    if o.take("activate", True):
        o.only("use_sigmoid", True)
    else:
        o.ignore("use_sigmoid", "nothing is activated")
    return {"type": "DiceLoss", **o.same("activate", "naive_dice", "eps", *_COMMON)}


def distillation(o: Options) -> dict[str, Any]:
    """KnowledgeDistillationKLDivLoss; T is its temperature."""
    result = {"type": "KnowledgeDistillationKLDivLoss", **o.same(*_COMMON)}
    return {**result, "temperature": o.take("T")} if o.has("T") else result


def seesaw(o: Options) -> dict[str, Any]:
    """SeesawLoss; a head supplies the number of classes."""
    o.only("use_sigmoid", False)
    o.ignore("return_dict", "terms() gives the two terms, a call their sum")
    classes = o.take("num_classes", 1203)
    result = {"type": "SeesawLoss", "num_classes": classes, "count_ignored": True}
    if not o.alone:
        o.report.wired.append(join_path(o.place or "", "num_classes"))
    return {**result, **o.same("p", "q", "eps", *_COMMON)}


def siou(o: Options) -> dict[str, Any]:
    """SIoULoss; the reference's default rewards distance."""
    negative = o.take("neg_gamma", False)
    return {"type": "SIoULoss", "neg_gamma": negative, **o.same("eps", *_COMMON)}


TRANSLATORS: dict[str, Translator] = {
    "AssociativeEmbeddingLoss": lambda o: {"type": o.type, **o.same("pull_weight", "push_weight")},
    "BalancedL1Loss": balanced_l1,
    "BoundedIoULoss": of_same_name("beta", "eps"),
    "CIoULoss": of_same_name("eps"),
    "CrossEntropyLoss": cross_entropy,
    "DIoULoss": of_same_name("eps"),
    "DiceLoss": dice,
    "DistributionFocalLoss": of_same_name(),
    "EIoULoss": of_same_name("eps", "smooth_point"),
    "FocalLoss": focal,
    "GHMC": ghmc,
    "GHMR": ghmr,
    "GIoULoss": of_same_name("eps"),
    "GaussianFocalLoss": of_same_name("alpha", "gamma", "pos_weight", "neg_weight"),
    "IoULoss": iou,
    "KnowledgeDistillationKLDivLoss": distillation,
    "L1Loss": of_same_name(),
    "MSELoss": of_same_name(),
    "QualityFocalLoss": sigmoid_only("beta", "activated"),
    "SIoULoss": siou,
    "SeesawLoss": seesaw,
    "SmoothL1Loss": of_same_name("beta"),
    "VarifocalLoss": sigmoid_only("alpha", "gamma", "iou_weighted"),
}
