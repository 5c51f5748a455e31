"""How operators that torch's exporter does not know are said in ONNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset18

#: Its operators are written to be typed by values, and are called with symbols here.
op: Any = opset18

_FLOAT, _INT64, _BOOL = 1, 7, 9
_NO_LIMIT = 2**31 - 1


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Operator -> the function that writes it in ONNX."""
    import detcore_postprocess.onnx  # noqa: F401  registers detcore::nms_mask

    return {
        torch.ops.detcore.nms_mask.default: nms_mask,
        torch.ops.aten.sort.stable: sort_stable,
        torch.ops.aten.bucketize.Tensor: bucketize,
    }


def nms_mask(boxes: Any, scores: Any, groups: Any, valid: Any, iou_threshold: float) -> Any:
    """``NonMaxSuppression`` with one class per group, and its answer as a mask [B, T].

    A box takes part in its own group only: in others, and where it is not valid, its score is below the threshold.
    """
    last = op.ReduceMax(groups, keepdims=0)
    numbers = op.Range(
        op.Constant(value_int=0), op.Add(last, op.Constant(value_int=1)), op.Constant(value_int=1)
    )
    member = op.Equal(
        op.Unsqueeze(groups, op.Constant(value_ints=[1])),
        op.Unsqueeze(numbers, op.Constant(value_ints=[0, 2])),
    )
    member = op.And(member, op.Unsqueeze(valid, op.Constant(value_ints=[1])))  # [B, G, T]
    score = op.Unsqueeze(op.Cast(scores, to=_FLOAT), op.Constant(value_ints=[1]))
    found = op.NonMaxSuppression(
        op.Cast(boxes, to=_FLOAT),
        op.Where(member, score, op.Constant(value_float=-1.0)),
        op.Constant(value_ints=[_NO_LIMIT]),
        op.Constant(value_floats=[float(iou_threshold)]),
        op.Constant(value_floats=[-0.5]),
    )  # rows of (image, group, box)
    place = op.Gather(found, op.Constant(value_ints=[0, 2]), axis=1)
    ones = op.Expand(op.Constant(value_int=1), op.Shape(found, start=0, end=1))
    none = op.Mul(op.Cast(valid, to=_INT64), op.Constant(value_int=0))
    return op.Cast(op.ScatterND(none, place, ones), to=_BOOL)


def sort_stable(
    self: Any, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> tuple[Any, Any]:
    """A top-k of everything: of equal values, it gives the lower index first."""
    count = op.Gather(op.Shape(self), op.Constant(value_ints=[dim]), axis=0)
    values, indices = op.TopK(self, count, axis=dim, largest=int(descending), sorted=1)
    return values, indices


def bucketize(self: Any, boundaries: Any, out_int32: bool = False, right: bool = False) -> Any:
    """The number of boundaries below each value, or up to it where ``right``."""
    value = op.Unsqueeze(self, op.Constant(value_ints=[-1]))
    passed = op.GreaterOrEqual(value, boundaries) if right else op.Greater(value, boundaries)
    return op.ReduceSum(
        op.Cast(passed, to=6 if out_int32 else _INT64), op.Constant(value_ints=[-1]), keepdims=0
    )
