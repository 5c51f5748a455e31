"""Steps of pipelines whose counterparts are in detcore-plugin-augment, with what gives the reference's numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from detcore_mmdet.options import Options

#: The reference keeps what is left of every object that is cut.
_KEEPS_ALL = {"min_bbox_size": 0.0, "min_area_ratio": 0.0}


def _mosaic(s: Options) -> list[dict[str, Any]]:
    result = {"type": "Mosaic", **_scale(s), **s.same("center_ratio_range", "prob"), **_pad_value(s)}
    _filters(s)
    return [{**result, **_KEEPS_ALL, "antialias": False}]


def _mix_up(s: Options) -> list[dict[str, Any]]:
    result = {"type": "MixUp", **_scale(s), **s.same("ratio_range"), **_pad_value(s)}
    # the reference mirrors where a number in [0, 1) is larger
    result["flip_ratio"] = round(1 - s.take("flip_ratio", 0.5), 9)
    s.ignore("max_iters", "a second picture without objects is not mixed in, and no other is looked for")
    _filters(s)
    return [{**result, **_KEEPS_ALL, "antialias": False}]


def _affine(s: Options) -> list[dict[str, Any]]:
    names = ("max_rotate_degree", "max_translate_ratio", "scaling_ratio_range", "max_shear_degree")
    result = {"type": "RandomAffine", **s.same(*names), "around": "corner"}
    border, value = s.take("border", (0, 0)), s.take("border_val", (114, 114, 114))
    if border[0] != border[1]:
        s.problem(
            "border", f"{border!r}: versions of the reference differ in which is first; give (x, y) here"
        )
    _filters(s)
    return [{**result, "border": list(border), "border_val": [int(v) for v in value[::-1]], **_KEEPS_ALL}]


def _copy_paste(s: Options) -> list[dict[str, Any]]:
    names = ("max_num_pasted", "bbox_occluded_thr", "mask_occluded_thr", "selected", "paste_by_box")
    return [{"type": "CopyPaste", **s.same(*names), "leftover": "drop"}]


def _crop(s: Options) -> list[dict[str, Any]]:
    result = {"type": "RandomCrop", "crop_size": list(s.take("crop_size", ()))}
    result |= s.same("crop_type", "allow_negative_crop", "recompute_bbox")
    _border(s)
    return [{**result, **_KEEPS_ALL}]


def _min_iou_crop(s: Options) -> list[dict[str, Any]]:
    result = {"type": "MinIoURandomCrop", **s.same("min_ious", "min_crop_size")}
    _border(s)
    return [{**result, "min_bbox_size": 0.0, "leftover": "drop"}]


def _expand(s: Options) -> list[dict[str, Any]]:
    mean = s.take("mean", (0, 0, 0))
    if not s.take("to_rgb", True):  # then it is in the order of the image, which is BGR there
        mean = mean[::-1]
    s.only("seg_ignore_label")
    return [{"type": "Expand", "mean": [round(v) for v in mean], **s.same("ratio_range", "prob")}]


def _filter(s: Options) -> list[dict[str, Any]]:
    by_box, by_mask = s.take("by_box", True), s.take("by_mask", False)
    size, area = s.take("min_gt_bbox_wh", (1.0, 1.0)), s.take("min_gt_mask_area", 1)
    s.ignore("keep_empty", "an image whose objects are all left out is background")
    result: dict[str, Any] = {
        "type": "FilterAnnotations",
        "min_gt_bbox_wh": list(size) if by_box else [0.0, 0.0],
    }
    return [{**result, "min_gt_mask_area": float(area)} if by_mask else result]


def _albumentations(s: Options) -> list[dict[str, Any]]:
    boxes = s.options("bbox_params")
    visible = boxes.take("min_visibility", 0.0)
    boxes.only("format", "pascal_voc")
    for name in ("label_fields", "filter_lost_elements", "min_area"):
        boxes.only(name, [], 0, 0.0, True, ["gt_labels"], ["gt_bboxes_labels", "gt_ignore_flags"])
    s.take("keymap")
    s.ignore("skip_img_without_anno", "an image whose objects are all lost is background")
    result: dict[str, Any] = {"type": "Albumentations", "transforms": _plain(s.take("transforms", []))}
    return [{**result, "min_visibility": visible} if visible else result]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def _scale(s: Options) -> dict[str, Any]:
    scale = s.take("img_scale")
    return {} if scale is None else {"img_scale": list(scale)}


def _pad_value(s: Options) -> dict[str, Any]:
    return {"pad_val": int(s.take("pad_val", 114))}


def _filters(s: Options) -> None:
    """2.x could filter boxes in these steps, and did not by default."""
    s.only("skip_filter", True)
    _border(s)
    for name in ("min_bbox_size", "min_area_ratio", "max_aspect_ratio"):
        s.take(name)


def _border(s: Options) -> None:
    s.only("bbox_clip_border", True)


STEPS: dict[str, Callable[[Options], list[dict[str, Any]]]] = {
    "Albu": _albumentations,
    "CopyPaste": _copy_paste,
    "Expand": _expand,
    "FilterAnnotations": _filter,
    "MinIoURandomCrop": _min_iou_crop,
    "MixUp": _mix_up,
    "Mosaic": _mosaic,
    "RandomAffine": _affine,
    "RandomCrop": _crop,
}
