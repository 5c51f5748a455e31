"""torchvision's compiled operator for suppression, without the import of torchvision where it can be spared.

``import torchvision`` imports its models and, for them, torch's compiler: a third of what passes from the start of
Python to a first prediction. A detector that predicts on the processor needs none of it, only the operator, which is
registered by the shared library beside torchvision's Python files. What else torchvision registers (kernels without
data for the compiler, versions checked on a GPU) comes with the import, so all other tensors get that.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from contextlib import suppress
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor


def nms(boxes: Float[Tensor, "N 4"], scores: Float[Tensor, "N"], iou_threshold: float) -> Int[Tensor, "kept"]:
    """Greedy non-maximum suppression: ``torchvision.ops.nms``.

    Args:
        boxes: xyxy in pixels.
        scores: Of two boxes that overlap, the better one stays; of equal ones the first, on the processor.
        iou_threshold: A box is dropped for a better one with which its IoU is above this.

    Returns:
        Rows that stay, the best first.
    """
    plain = type(boxes) is Tensor and boxes.device.type == "cpu" and not torch.compiler.is_compiling()
    if plain and _registered():
        return torch.ops.torchvision.nms(boxes, scores, iou_threshold)  # type: ignore[no-any-return]
    from torchvision import ops

    return ops.nms(boxes, scores, iou_threshold)  # type: ignore[no-any-return]


@functools.cache
def _registered() -> bool:
    """Whether the operator is there without the import; looks for its library once."""
    for library in () if "torchvision" in sys.modules else _libraries():
        with suppress(OSError):  # of another torch, say: the import knows how to tell
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    return hasattr(torch.ops.torchvision, "nms")


def _libraries() -> list[Path]:
    """The shared libraries of torchvision's operators; none where they have other names than on Linux and macOS."""
    found = importlib.util.find_spec("torchvision")
    folders = (found.submodule_search_locations if found else None) or ()
    return [path for folder in folders for path in sorted(Path(folder).glob("_C*.so"))]
