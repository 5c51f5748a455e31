"""What detcore adds to pytest: an option that checks a distribution, and a fixture. Importing it is cheap.

``pytest --detcore-conformance DISTRIBUTION`` runs every check on everything that the distribution registers, and
nothing else unless files are named too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from detcore.component import Component
    from detcore.registry import Registry
    from detcore.testing.catalog import Unavailable
    from detcore.testing.checking import Check
    from detcore.testing.subject import Subject

OPTION = "detcore_conformance"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options."""
    group = parser.getgroup("detcore")
    group.addoption(
        "--detcore-conformance",
        dest=OPTION,
        action="append",
        default=[],
        metavar="DISTRIBUTION",
        help="check everything that DISTRIBUTION registers (may be given several times)",
    )
    group.addoption(
        "--detcore-seed",
        dest="detcore_seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the inputs of --detcore-conformance (default: 0)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker; with the option, looks for no other tests than those that were asked for."""
    config.addinivalue_line("markers", "slow: takes more than a few seconds")
    if config.getoption(OPTION) and config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = []


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Adds the checks of the distributions that were asked for."""
    for distribution in config.getoption(OPTION):
        items.extend(_collect(session, distribution, config.getoption("detcore_seed")))


def _collect(session: pytest.Session, distribution: str, seed: int) -> Iterator[pytest.Item]:
    from detcore.errors import DetcoreError
    from detcore.testing.catalog import Unavailable, check_expected_failures, checks_of, subjects_of

    try:
        subjects = subjects_of(distribution)
        for subject in subjects:
            if not isinstance(subject, Unavailable):
                check_expected_failures(subject)
    except DetcoreError as error:
        raise pytest.UsageError(str(error)) from error
    for subject in subjects:
        if isinstance(subject, Unavailable):
            name = f"{distribution}::{subject.id}"
            yield UnavailableItem.from_parent(session, name=name, nodeid=name, unavailable=subject)
            continue
        for check in checks_of(subject.type):
            name = f"{distribution}::{subject.id}::{check.name}"
            yield ConformanceItem.from_parent(
                session, name=name, nodeid=name, subject=subject, check=check, seed=seed
            )


class _Item(pytest.Item):
    """A test without a file; the report is the message alone."""

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """Where it is: nowhere but in its name."""
        return self.path, None, self.name

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The message, with the traceback of what the component raised, if it did."""
        cause = excinfo.value.__cause__
        if not isinstance(excinfo.value, AssertionError):
            return super().repr_failure(excinfo)
        if cause is None:
            return str(excinfo.value)
        shown = pytest.ExceptionInfo.from_exception(cause).getrepr(style="short")
        return f"{excinfo.value}\n\n{shown}"


class ConformanceItem(_Item):
    """One check of one component.

    Args:
        subject: The component.
        check: The check.
        seed: Seed of the inputs.
        **kwargs: For pytest.
    """

    def __init__(self, *, subject: Subject, check: Check, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.subject, self.check, self.seed = subject, check, seed
        if check.slow:
            self.add_marker("slow")

    def runtest(self) -> None:
        """Runs it."""
        from detcore.testing.parametrize import BoundCheck

        BoundCheck(self.check, self.seed)(self.subject)


class UnavailableItem(_Item):
    """A registered component that cannot be checked; fails.

    Args:
        unavailable: The component, and why.
        **kwargs: For pytest.
    """

    def __init__(self, *, unavailable: Unavailable, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.unavailable = unavailable

    def runtest(self) -> None:
        """Fails with the reason."""
        from detcore.testing.errors import ConformanceError

        raise ConformanceError(self.unavailable.reason)


@pytest.fixture
def detcore_registry() -> Iterator[Callable[..., Registry]]:
    """A function that makes the given component classes, and nothing that is installed, known by name.

    It may be called again; the last call counts. ``installed=True`` keeps what is installed, too.
    """
    from detcore import registry
    from detcore.testing.registries import registry_of

    before = registry.current()
    with ExitStack() as stack:

        def use(*classes: type[Component], distribution: str = "tests", installed: bool = False) -> Registry:
            stack.enter_context(registry.use(before))  # not what an earlier call has made
            made = registry_of(*classes, distribution=distribution, installed=installed)
            return stack.enter_context(registry.use(made))

        yield use
