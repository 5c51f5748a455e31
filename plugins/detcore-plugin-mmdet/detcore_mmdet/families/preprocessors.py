"""Preprocessors."""

from __future__ import annotations

from typing import Any

from detcore_mmdet.options import Options, Translator

_LOADER = "the data loader's business"


def det_data_preprocessor(o: Options) -> dict[str, Any]:
    """DetDataPreprocessor. The reference reads images as BGR; here they are RGB, mean and std likewise."""
    rgb = o.take("bgr_to_rgb", False)
    o.only("rgb_to_bgr", False)
    mean, std = list(o.take("mean", (0.0, 0.0, 0.0))), list(o.take("std", (1.0, 1.0, 1.0)))
    o.only("pad_value", 0)
    for name in ("pad_mask", "mask_pad_value", "pad_seg", "seg_pad_value", "boxtype2tensor", "non_blocking"):
        o.ignore(name, _LOADER)
    if o.take("batch_augments"):
        o.problem("batch_augments", "augmentation of whole batches has no counterpart in detcore")
    result = {
        "type": "ImagePreprocessor",
        "mean": mean,
        "std": std,
        "size_divisor": o.take("pad_size_divisor", 1),
    }
    if not rgb:
        result |= {"mean": mean[::-1], "std": std[::-1], "channel_order": "bgr"}
    return result


TRANSLATORS: dict[str, Translator] = {"DetDataPreprocessor": det_data_preprocessor}
