"""Detectors: pure composition of a preprocessor, a backbone, a neck and heads."""

from detcore.detectors.optimized import OptimizedDetector, optimize_for_inference
from detcore.detectors.preprocessor import ImagePreprocessor
from detcore.detectors.single_stage import SingleStageDetector
from detcore.detectors.two_stage import TwoStageDetector

__all__ = [
    "ImagePreprocessor",
    "OptimizedDetector",
    "SingleStageDetector",
    "TwoStageDetector",
    "optimize_for_inference",
]
