"""Compiled operators of torchvision, without the import of torchvision where it can be spared.

``import torchvision`` imports its models and, for them, torch's compiler: a third of what passes from the start of
Python to a first prediction. A detector that predicts on the processor needs none of it, only the operators, which are
registered by the shared library beside torchvision's Python files. What else torchvision registers (gradients, kernels
without data for the compiler, versions checked on a GPU) comes with the import, so all else gets that.
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
    if _suffices(boxes, scores):
        return torch.ops.torchvision.nms(boxes, scores, iou_threshold)  # type: ignore[no-any-return]
    from torchvision import ops

    return ops.nms(boxes, scores, iou_threshold)  # type: ignore[no-any-return]


def roi_align(
    feature: Float[Tensor, "B C H W"],
    rois: Float[Tensor, "P 5"],
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Float[Tensor, "P C h w"]:
    """RoIAlign (He et al., Mask R-CNN, arXiv:1703.06870): ``torchvision.ops.roi_align``.

    Args:
        feature: One level of a pyramid.
        rois: Index of the image and xyxy in pixels, of the type of ``feature``.
        output_size: (h, w) of the result, in cells.
        spatial_scale: Cells of the level per pixel.
        sampling_ratio: Samples per cell of the result and axis; 0 for as many as it has cells of the level.
        aligned: Whether samples are placed by the centres of the level's cells.
    """
    if _suffices(feature, rois):
        return torch.ops.torchvision.roi_align(  # type: ignore[no-any-return]
            feature, rois, spatial_scale, *output_size, sampling_ratio, aligned
        )
    from torchvision import ops

    return ops.roi_align(  # type: ignore[no-any-return]
        feature, rois, output_size, spatial_scale, sampling_ratio, aligned
    )


def _suffices(*tensors: Tensor) -> bool:
    """Whether the operator alone will do, and is there."""
    if torch.compiler.is_compiling():
        return False
    plain = all(type(tensor) is Tensor and tensor.device.type == "cpu" for tensor in tensors)
    gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return plain and not gradient and _registered()


@functools.cache
def _registered() -> bool:
    """Whether the operators are there without the import; looks for their library once."""
    for library in () if "torchvision" in sys.modules else _libraries():
        with suppress(OSError):  # of another torch, say: the import knows how to tell
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    return all(hasattr(torch.ops.torchvision, name) for name in ("nms", "roi_align"))


def _libraries() -> list[Path]:
    """The shared libraries of torchvision's operators; none where they have other names than on Linux and macOS."""
    found = importlib.util.find_spec("torchvision")
    folders = (found.submodule_search_locations if found else None) or ()
    return [path for folder in folders for path in sorted(Path(folder).glob("_C*.so"))]
