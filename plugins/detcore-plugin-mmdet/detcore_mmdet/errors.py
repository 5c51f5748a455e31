"""Errors of the bridge."""

from __future__ import annotations

from detcore.errors import ConfigError


class TranslationError(ConfigError):
    """A configuration of MMDetection has parts or options without a counterpart here; lists all of them."""
