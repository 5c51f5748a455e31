"""The order of the tests in runs of several processes."""

from __future__ import annotations

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests begin first, so that no process is still at one when the others have nothing left to do.

    Groups of tests that share a process come before all others anyway: pytest-xdist begins with the largest.
    """
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)
