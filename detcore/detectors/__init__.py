"""Detectors: pure composition of a preprocessor, a backbone, a neck and heads; and detectors around others."""

from detcore.detectors.optimized import OptimizedDetector, optimize_for_inference
from detcore.detectors.preprocessor import ImagePreprocessor
from detcore.detectors.single_stage import SingleStageDetector
from detcore.detectors.two_stage import TwoStageDetector
from detcore.detectors.wrapped import WrappedDetector

__all__ = [
    "ImagePreprocessor",
    "OptimizedDetector",
    "SingleStageDetector",
    "TwoStageDetector",
    "WrappedDetector",
    "optimize_for_inference",
]
