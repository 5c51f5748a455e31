"""A pytest plugin that writes docs/reliability.md: the faults that tests marked ``reliability`` try.

``nox -s reliability`` runs it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest

#: Titles of the page's parts, in their order.
AREAS = {
    "configs": "Configurations",
    "plugins": "Plugins",
    "labels": "Labels",
    "data": "Data",
    "guards": "Guards while training",
    "resume": "Checkpoints and resuming",
    "determinism": "Determinism",
    "processes": "Many processes",
    "evaluation": "Evaluation",
    "test-time": "Prediction",
    "security": "Security",
    "export": "Export",
}
HEAD = """# Reliability

The faults and bad inputs that the tests try, how many of each, and what happens. `nox -s reliability` runs these tests
and writes this page. A row's number counts inputs: the cases of a test, or what it generated.
"""


@dataclass
class Row:
    """One fault: how many inputs were tried, and what became of the tests."""

    tried: int = 0
    failed: int = 0
    skipped: list[str] = field(default_factory=list)


def pytest_addoption(parser):
    parser.addoption("--reliability-page", type=Path, help="the page to write")


def pytest_configure(config):
    page = config.getoption("--reliability-page")
    if page is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Page(page), "reliability-page")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    marker = item.get_closest_marker("reliability")
    if marker is None:
        return
    item.user_properties.append(("reliability", [marker.kwargs[key] for key in ("area", "fault", "outcome")]))
    generated = getattr(item.obj, "hypothesis", None)
    if generated is not None:
        generated.inner_test = counted(generated.inner_test, item.user_properties)


def counted(inner, properties):
    """The body of a Hypothesis test that counts its examples into the test's properties."""
    from functools import wraps

    @wraps(inner)
    def body(*args, **kwargs):
        properties.append(("tried", 1))
        return inner(*args, **kwargs)

    return body


class Page:
    """Gathers the reports of all tests and writes the page at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[tuple[str, str, str], Row] = defaultdict(Row)

    def pytest_runtest_logreport(self, report):
        properties = report.user_properties
        keys = [tuple(value) for name, value in properties if name == "reliability"]
        if not keys or (report.when != "call" and report.passed):
            return
        row = self.rows[keys[0]]
        if report.skipped:
            row.skipped.append(report.longrepr[2].removeprefix("Skipped: "))
        elif report.failed:
            row.failed += 1
        else:
            row.tried += sum(value for name, value in properties if name == "tried") or 1

    def pytest_sessionfinish(self):
        self.path.write_text(text(self.rows), encoding="utf-8")


def text(rows: dict[tuple[str, str, str], Row]) -> str:
    """The page."""
    parts = [HEAD]
    for area, title in AREAS.items():
        found = {key: row for key, row in sorted(rows.items()) if key[0] == area}
        if found:
            lines = [
                f"| {fault} | {row.tried} | {result(outcome, row)} |"
                for (_, fault, outcome), row in found.items()
            ]
            table = ["| fault or input | tried | what happens |", "|---|---:|---|", *lines]
            parts.append(f"## {title}\n\n" + "\n".join(table) + "\n")
    total = sum(row.tried for row in rows.values())
    parts.append(f"{len(rows)} faults, {total} inputs in all.\n")
    return "\n".join(parts)


def result(outcome: str, row: Row) -> str:
    """What the last column says."""
    if row.failed:
        return f"**failed ({row.failed}):** {outcome}"
    if row.skipped:
        return f"{outcome} ({len(row.skipped)} not tried here: {row.skipped[0]})"
    return outcome
