"""Pictures of detections and of ground truth: those of detcore_eval, under the name that they had here."""

from __future__ import annotations

from detcore_eval.drawing import Drawn, color_of, draw, font, resized, side_by_side

__all__ = ["Drawn", "color_of", "draw", "font", "resized", "side_by_side"]
