"""Evaluation as JSON, as tables and as one page."""

from __future__ import annotations

from detcore_eval.report.report import Report, write_report

__all__ = ["Report", "write_report"]
