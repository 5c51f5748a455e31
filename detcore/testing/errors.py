"""What a check says of a component."""

from __future__ import annotations


class ConformanceError(AssertionError):
    """A component does not behave as its interface says; tells the behaviour, the input, and how to run it again."""


class NotApplicableError(Exception):
    """A check has no meaning for a component."""
