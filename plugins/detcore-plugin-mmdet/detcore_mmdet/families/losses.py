"""Losses."""

from __future__ import annotations

from typing import Any

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


TRANSLATORS: dict[str, Translator] = {
    "CIoULoss": of_same_name("eps"),
    "CrossEntropyLoss": cross_entropy,
    "DIoULoss": of_same_name("eps"),
    "FocalLoss": focal,
    "GIoULoss": of_same_name("eps"),
    "IoULoss": iou,
    "L1Loss": of_same_name(),
    "SmoothL1Loss": of_same_name("beta"),
}
