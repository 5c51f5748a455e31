"""Which checks there are, and what of an installed distribution can be checked."""

from __future__ import annotations

import functools
import importlib
import pkgutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from detcore import hooks, registry
from detcore.component import Component, Spec
from detcore.errors import BrokenPluginError, ConfigError, DetcoreError, did_you_mean
from detcore.registry import Entry
from detcore.signature import signature_of
from detcore.testing import checks as _checks
from detcore.testing.checking import Check
from detcore.testing.errors import ConformanceError, NotApplicableError
from detcore.testing.subject import Subject, as_subject, standard_wiring


@functools.cache
def built_in_checks() -> tuple[Check, ...]:
    """The checks of this package, those of every component first, then by interface."""
    names = sorted(module.name for module in pkgutil.iter_modules(_checks.__path__))
    names.sort(key=lambda name: name != "components")
    found = []
    for name in names:
        module = importlib.import_module(f"{_checks.__name__}.{name}")
        found += [value for value in vars(module).values() if isinstance(value, Check)]
    return tuple(found)


def all_checks() -> tuple[Check, ...]:
    """The checks of this package and those that plugins add.

    Raises:
        DetcoreError: Two checks have one name.
    """
    added = [check for checks in _hook().detcore_add_checks() for check in checks]
    found = (*built_in_checks(), *added)
    names = [check.name for check in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DetcoreError(f"several conformance checks are called {', '.join(twice)}; rename the added ones")
    return found


def _hook() -> Any:
    """The hooks of the plugins that work; `detcore doctor` tells of the others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hooks.BrokenPluginWarning)
        return hooks.manager().hook


def checks_of(component: type) -> tuple[Check, ...]:
    """The checks that hold for components of a class."""
    return tuple(check for check in all_checks() if check.applies_to(component))


def check_expected_failures(subject: Subject) -> None:
    """Refuses expected failures of checks that do not exist.

    Raises:
        ConfigError: A name is unknown, or a check of another interface.
    """
    known = [check.name for check in checks_of(subject.type)]
    for name in subject.expected_failures:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(
                f"expected_failures: no check of {subject.type.__name__} is called {name!r}; "
                f"{hint + ' ' if hint else ''}there are: {', '.join(known)}"
            )


def run_check(component: object, name: str, seed: int = 0) -> None:
    """Runs one check on a component, as the report of a failure says it.

    Args:
        component: A component, a spec, a component class, or a :class:`~detcore.testing.Subject`.
        name: The check's.
        seed: Seed of the inputs.

    Raises:
        ConformanceError: The component does not behave.
        NotApplicableError: The check has no meaning for it.
        ConfigError: There is no check of that name for the component.
    """
    subject = as_subject(component)
    found = {check.name: check for check in checks_of(subject.type)}
    if name not in found:
        hint = did_you_mean(name, found)
        raise ConfigError(f"{subject.type.__name__} has no check {name!r}; {hint or ', '.join(found)}")
    found[name].run(subject, seed)


def run_expecting(check: Check, subject: Subject, seed: int = 0) -> str | None:
    """Runs a check with the subject's expected failures in mind.

    Returns:
        The reason why it fails, where that is expected; None where it passes.

    Raises:
        ConformanceError: It fails, or does not though that is expected.
        NotApplicableError: It has no meaning for the component.
    """
    reason = subject.expected_failures.get(check.name)
    if reason is None:
        check.run(subject, seed)
        return None
    try:
        check.run(subject, seed)
    except ConformanceError:
        return reason
    except NotApplicableError as error:
        what = f"does not apply ({error})"
    else:
        what = "passes"
    raise ConformanceError(
        f"{subject.id}: {check.name} is expected to fail ({reason}) but {what}; "
        "remove it from expected_failures"
    )


# ----------------------------------------------------------------------------------------- distributions


@dataclass(frozen=True)
class Unavailable:
    """A registered component of which no instance can be had.

    Args:
        entry: Where it is registered.
        reason: Why, and what to do about it.
    """

    entry: Entry
    reason: str

    @property
    def id(self) -> str:
        """The component's name."""
        return self.entry.name


@dataclass(frozen=True)
class Examples:
    """What installed plugins offer.

    Args:
        subjects: By class.
        failures: What went wrong, for each plugin whose hook failed; it breaks only its own examples.
    """

    subjects: dict[type, list[Subject]]
    failures: list[str]


def examples() -> Examples:
    """The examples that installed plugins offer through ``detcore_conformance_examples``."""
    found = Examples({}, [])
    for implementation in _hook().detcore_conformance_examples.get_hookimpls():
        try:
            offered = [as_subject(value) for value in implementation.function()]
        except Exception as error:
            name, what = implementation.plugin_name, f"{type(error).__name__}: {error}"
            found.failures.append(f"the examples of {name} failed with {what}")
            continue
        for subject in offered:
            found.subjects.setdefault(subject.type, []).append(subject)
    return found


def subjects_of(distribution: str) -> list[Subject | Unavailable]:
    """Everything that a distribution registers, as subjects: its examples, or else what the defaults make.

    Args:
        distribution: Its name.

    Raises:
        DetcoreError: It is not installed, or registers no component.
    """
    wanted = registry.normalise(distribution)
    entries = [e for e in registry.entries() if registry.normalise(e.distribution) == wanted]
    if not entries:
        names = sorted({e.distribution for e in registry.entries()})
        hint = did_you_mean(distribution, names)
        raise DetcoreError(
            f"no installed distribution {distribution!r} registers components; "
            f"{hint or 'those that do: ' + ', '.join(names)}"
        )
    offered = examples()
    return [subject for entry in entries for subject in _subjects_of(entry, offered)]


def _subjects_of(entry: Entry, offered: Examples) -> Iterator[Subject | Unavailable]:
    try:
        component = registry.current().load(entry)
    except BrokenPluginError as error:
        yield Unavailable(entry, str(error))
        return
    if component in offered.subjects:
        yield from offered.subjects[component]
        return
    missing = _missing(component)
    if missing:
        remedy = "let its distribution offer an example through the hook detcore_conformance_examples"
        reasons = [f"{component.__name__} needs values for {', '.join(missing)}; {remedy}", *offered.failures]
        yield Unavailable(entry, "; ".join(reasons))
        return
    yield Subject(Spec(component, {}))


def _missing(component: type[Component]) -> list[str]:
    """Parameters that neither a default nor the kit gives a value."""
    supplied = standard_wiring(component.kind)
    parameters = signature_of(component).parameters.values()
    return [p.name for p in parameters if p.required and not (p.wired and p.name in supplied)]
