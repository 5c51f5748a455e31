"""Which package to install for a component's name, for the error that a missing package causes."""

from __future__ import annotations

#: Component name -> first-party distribution. A test keeps it equal to the plugins' entry points.
PACKAGE_OF: dict[str, str] = {}
