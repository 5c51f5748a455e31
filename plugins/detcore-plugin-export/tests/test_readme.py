"""What the README says about inputs, outputs and tolerances. Its code is run in tests/test_exported_detectors.py."""

from __future__ import annotations

from pathlib import Path

from detcore_export import Tolerance

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_tolerances_are_the_defaults():
    tolerance = Tolerance()
    text = f"Boxes may differ by {tolerance.boxes} pixels, scores by 1e-4, masks by 1e-3"
    assert text in README
    assert (tolerance.scores, tolerance.masks) == (1e-4, 1e-3)
