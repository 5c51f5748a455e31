"""Post-processing: from scored candidates to detections."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_postprocess.augmented import AugmentedDetector, scaled
    from detcore_postprocess.candidates import Candidates, select_candidates
    from detcore_postprocess.clusters import nms_match
    from detcore_postprocess.ensemble import EnsembleDetector
    from detcore_postprocess.fast_nms import FastNMS
    from detcore_postprocess.fusion import weighted_boxes_fusion
    from detcore_postprocess.hard_nms import NMS
    from detcore_postprocess.interface import Suppressed, Suppression
    from detcore_postprocess.masks import mask_matrix_nms
    from detcore_postprocess.matrix_nms import MatrixNMS
    from detcore_postprocess.merger import Merger
    from detcore_postprocess.merging import (
        average_boxes,
        average_masks,
        average_scores,
        best_detections,
        boxes_to_original,
        concatenate_detections,
        join_detections,
        merge_detections,
        merge_proposals,
    )
    from detcore_postprocess.multiclass import multiclass_nms
    from detcore_postprocess.nms import NMSPostprocess
    from detcore_postprocess.nms_merger import NMSMerger
    from detcore_postprocess.onnx import onnx_forms
    from detcore_postprocess.raw import raw_batch, raw_images
    from detcore_postprocess.results import keep_best, to_detections
    from detcore_postprocess.soft_nms import SoftNMS
    from detcore_postprocess.suppression import batched_nms, nms_mask
    from detcore_postprocess.tiled import TiledDetector
    from detcore_postprocess.transformed import TransformedDetector
    from detcore_postprocess.wbf_merger import WeightedBoxesFusion

__all__ = [
    "NMS",
    "AugmentedDetector",
    "Candidates",
    "EnsembleDetector",
    "FastNMS",
    "MatrixNMS",
    "Merger",
    "NMSMerger",
    "NMSPostprocess",
    "SoftNMS",
    "Suppressed",
    "Suppression",
    "TiledDetector",
    "TransformedDetector",
    "WeightedBoxesFusion",
    "average_boxes",
    "average_masks",
    "average_scores",
    "batched_nms",
    "best_detections",
    "boxes_to_original",
    "concatenate_detections",
    "join_detections",
    "keep_best",
    "mask_matrix_nms",
    "merge_detections",
    "merge_proposals",
    "multiclass_nms",
    "nms_mask",
    "nms_match",
    "onnx_forms",
    "raw_batch",
    "raw_images",
    "scaled",
    "select_candidates",
    "to_detections",
    "weighted_boxes_fusion",
]

_HOME = {
    "EnsembleDetector": "ensemble",
    "Merger": "merger",
    "NMSMerger": "nms_merger",
    "TiledDetector": "tiled",
    "TransformedDetector": "transformed",
    "WeightedBoxesFusion": "wbf_merger",
    "join_detections": "merging",
    "raw_batch": "raw",
    "raw_images": "raw",
    "AugmentedDetector": "augmented",
    "scaled": "augmented",
    "Candidates": "candidates",
    "FastNMS": "fast_nms",
    "MatrixNMS": "matrix_nms",
    "NMS": "hard_nms",
    "NMSPostprocess": "nms",
    "SoftNMS": "soft_nms",
    "Suppressed": "interface",
    "Suppression": "interface",
    "average_boxes": "merging",
    "average_masks": "merging",
    "average_scores": "merging",
    "batched_nms": "suppression",
    "best_detections": "merging",
    "boxes_to_original": "merging",
    "concatenate_detections": "merging",
    "keep_best": "results",
    "mask_matrix_nms": "masks",
    "merge_detections": "merging",
    "merge_proposals": "merging",
    "multiclass_nms": "multiclass",
    "nms_mask": "suppression",
    "nms_match": "clusters",
    "onnx_forms": "onnx",
    "select_candidates": "candidates",
    "to_detections": "results",
    "weighted_boxes_fusion": "fusion",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for, and nothing before it is."""
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
