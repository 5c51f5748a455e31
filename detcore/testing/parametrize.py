"""Checks as parameters of a pytest function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from detcore.testing.catalog import check_expected_failures, checks_of, run_expecting
from detcore.testing.checking import Check
from detcore.testing.errors import NotApplicableError
from detcore.testing.subject import Subject, as_subject


class BoundCheck:
    """What the test function gets as ``check``: call it with the component.

    Args:
        check: What is checked.
        seed: Seed of the inputs.
    """

    def __init__(self, check: Check, seed: int) -> None:
        self.check = check
        self.seed = seed
        self.__name__ = check.name

    def __call__(self, component: Any) -> None:
        """Runs the check; skips where it has no meaning, and reports what is expected to fail as such.

        Raises:
            ConformanceError: The component does not behave, or passes a check that it is expected to fail.
        """
        try:
            reason = run_expecting(self.check, as_subject(component), self.seed)
        except NotApplicableError as error:
            pytest.skip(str(error))
        if reason is not None:
            pytest.xfail(reason)

    def __repr__(self) -> str:
        return self.check.name


def parametrize_with_checks(
    components: Any, *, expected_failures: Mapping[str, str] | None = None, seed: int = 0
) -> pytest.MarkDecorator:
    """Runs every check of a component's interface as a test of its own.

    >>> @parametrize_with_checks(MyAssigner.spec(thr=0.4), expected_failures={"assigner_ties": "..."})
    ... def test_conformance(component, check):
    ...     check(component)

    Args:
        components: A spec, an instance (of which copies are checked), a class with defaults for everything, a
            :class:`~detcore.testing.Subject`, or a list of these.
        expected_failures: Names of checks that are known to fail, each with the reason. One that passes all
            the same is an error. They hold for all ``components``; a Subject may have its own.
        seed: Seed of the inputs.

    Raises:
        ConfigError: A component is not valid, or no check is called as an expected failure is.
        TypeError: One of ``components`` is no component.
    """
    many = components if isinstance(components, (list, tuple)) else [components]
    subjects = [as_subject(value, expected_failures) for value in many]
    for subject in subjects:
        check_expected_failures(subject)
    return pytest.mark.parametrize(("component", "check"), list(_parameters(subjects, seed)))


def _parameters(subjects: Iterable[Subject], seed: int) -> Iterable[Any]:
    counts: dict[str, int] = {}
    for subject in subjects:
        counts[subject.id] = counts.get(subject.id, 0) + 1
        number = f"-{counts[subject.id]}" if counts[subject.id] > 1 else ""
        for check in checks_of(subject.type):
            marks = [pytest.mark.slow] if check.slow else []
            name = f"{subject.id}{number}-{check.name}"
            yield pytest.param(subject, BoundCheck(check, seed), marks=marks, id=name)
