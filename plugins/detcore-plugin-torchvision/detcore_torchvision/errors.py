"""Errors of the bridge."""

from __future__ import annotations

from detcore.errors import ConfigError


class TorchvisionImportError(ConfigError):
    """A model of torchvision has parts or settings without a counterpart here; lists all of them."""
