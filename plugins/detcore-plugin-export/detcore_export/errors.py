"""What may go wrong when a detector is exported."""

from __future__ import annotations

from detcore.errors import DetcoreError


class NotExportableError(DetcoreError, RuntimeError):
    """A detector cannot be captured as one graph, or not be said in ONNX; names the module and the operator."""


class ExportMismatchError(DetcoreError, RuntimeError):
    """An exported file does not give what the detector gives; names output, batch, size and difference."""


class MissingRuntimeError(DetcoreError, ImportError):
    """What runs a file is not installed; tells how to install it."""
