"""Post-processing in the form that ONNX can express: what an exporter turns on while it captures a detector.

Two steps have no counterpart in ONNX as the compiler gets them: a top-k on the bits of scores, and suppression on
float64 coordinates. ONNX's own operators do the same: ``TopK`` puts the lower index first where values are equal,
and ``NonMaxSuppression`` keeps images and classes apart by itself. Nothing changes outside of :func:`onnx_forms`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, library

from detcore_postprocess.lanes import image_groups
from detcore_postprocess.suppression import nms_mask

_active = False


@contextmanager
def onnx_forms() -> Iterator[None]:
    """Inside, what is captured by ``torch.export`` is made of operators that ONNX has, and of ``detcore::nms_mask``.

    An exporter translates ``torch.ops.detcore.nms_mask`` to ``NonMaxSuppression``.
    """
    global _active
    before, _active = _active, True
    try:
        yield
    finally:
        _active = before


def wants_onnx() -> bool:
    """Whether a capture inside of :func:`onnx_forms` is going on."""
    return _active and torch.compiler.is_compiling()


@library.custom_op(
    "detcore::nms_mask",
    mutates_args=(),
    schema="(Tensor boxes, Tensor scores, Tensor groups, Tensor valid, float iou_threshold) -> Tensor",
)
def grouped_nms(boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, iou_threshold: float) -> Tensor:
    """Which boxes are kept: bool [B, T].

    Args:
        boxes: xyxy in pixels, [B, T, 4].
        scores: Not negative, [B, T].
        groups: Not negative, [B, T]; they mean something within an image only.
        valid: Rows that take part, [B, T].
        iou_threshold: A box is dropped for a better one of its group with which its IoU is above this.
    """
    return nms_mask(boxes, scores, image_groups(groups), iou_threshold, valid)


@grouped_nms.register_fake
def _(boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, iou_threshold: float) -> Tensor:
    return torch.empty_like(valid)
