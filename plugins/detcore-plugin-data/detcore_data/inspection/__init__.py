"""What is wrong, or odd, in annotated images, found before anything is trained on them."""

from __future__ import annotations

from detcore_data.inspection.findings import Finding, Instance, Severity
from detcore_data.inspection.overlap import inspect_overlap
from detcore_data.inspection.seen import Seen, seen_objects
from detcore_data.inspection.split import Inspected, Options, inspect_split

__all__ = [
    "Finding",
    "Inspected",
    "Instance",
    "Options",
    "Seen",
    "Severity",
    "inspect_overlap",
    "inspect_split",
    "seen_objects",
]
