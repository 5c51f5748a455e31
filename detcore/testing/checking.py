"""Checks: named, versioned statements about a component's behaviour, and what happens when one is run."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from detcore.component import Component
from detcore.testing.compare import ATOL, RTOL, describe_first, difference, leaves, snapshot
from detcore.testing.errors import ConformanceError, NotApplicableError
from detcore.testing.subject import Subject


@dataclass
class Trial:
    """One run of a check: a component, an input by name, and a seed.

    Args:
        subject: Where components come from.
        case: Name of the input; empty for checks with a single one.
        seed: Seed of every random number.
        made: How the inputs were made, as Python calls; for the report.
    """

    subject: Subject
    case: str = ""
    seed: int = 0
    made: list[str] = field(default_factory=list)

    def component(self) -> Any:
        """A fresh copy of the component, which nothing was done to yet."""
        return self.subject.copy()

    def make(self, maker: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The result of a function from :mod:`detcore.testing.data`; the call is noted for the report."""
        if "seed" in inspect.signature(maker).parameters:
            kwargs.setdefault("seed", self.seed)
        shown = [repr(arg) for arg in args] + [f"{k}={_brief(v)}" for k, v in kwargs.items()]
        self.made.append(f"{maker.__name__}({', '.join(shown)})")
        return maker(*args, **kwargs)

    def note(self, text: str) -> None:
        """Adds to the report what the input is."""
        self.made.append(text)

    def seed_everything(self) -> None:
        """Puts torch's global generator into the state that belongs to the seed."""
        torch.manual_seed(self.seed)

    def generator(self) -> torch.Generator:
        """A generator of its own, in the state that belongs to the seed."""
        return torch.Generator().manual_seed(self.seed)

    def fail(self, what: str) -> None:
        """Ends the run: the component does not behave.

        Raises:
            ConformanceError: Always.
        """
        raise ConformanceError(what)

    def skip(self, why: str) -> None:
        """Ends the run: the check has no meaning for this component or input.

        Raises:
            NotApplicableError: Always.
        """
        raise NotApplicableError(why)

    def require(self, condition: bool | Tensor, what: str, values: Tensor | None = None) -> None:
        """Fails where ``condition`` does not hold (everywhere, if it is a tensor).

        Args:
            condition: What should be.
            what: What is wrong otherwise.
            values: What to show of the places where it does not hold.
        """
        if isinstance(condition, Tensor):
            if bool(condition.all()):
                return
            shown = condition if values is None else values
            self.fail(f"{what}: {describe_first(~condition, shown)}")
        if not condition:
            self.fail(what)

    def same(self, got: Any, wanted: Any, what: str, *, rtol: float = RTOL, atol: float = ATOL) -> None:
        """Fails where two values differ by more than rounding."""
        found = difference(got, wanted, rtol=rtol, atol=atol)
        if found:
            self.fail(f"{what}: {found}")

    def finite(self, value: Any, what: str) -> None:
        """Fails where a floating point value inside is infinite or NaN."""
        for path, leaf in leaves(value):
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                self.require(
                    leaf.isfinite(), f"{what} {path} is not finite".replace("  ", " "), leaf.detach()
                )

    @contextmanager
    def unchanged(self, what: str, *values: Any) -> Iterator[None]:
        """Fails if what happens inside writes to any of the values."""
        before = [snapshot(value) for value in values]
        yield
        for value, old in zip(values, before, strict=True):
            found = difference(snapshot(value), old)
            if found:
                self.fail(f"{what} was written to: {found}")


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 and "tensor(" not in text else "..."


@dataclass(frozen=True)
class Check:
    """One statement about the behaviour of every component of an interface.

    Args:
        name: Unique; begins with the interface.
        behaviour: The statement, one sentence.
        interface: Whose components it holds for.
        function: Runs it on a :class:`Trial`; fails through it.
        version: Raised when the check begins to refuse what it accepted before.
        cases: Names of the inputs that it is run on.
        compares: Whether it compares two runs, which says nothing about a component that is not deterministic.
        slow: Whether it takes more than a few seconds.
    """

    name: str
    behaviour: str
    interface: type[Component]
    function: Callable[[Trial], None] = field(repr=False)
    version: int = 1
    cases: tuple[str, ...] = ("",)
    compares: bool = False
    slow: bool = False

    def applies_to(self, component: type) -> bool:
        """Whether it is a statement about components of this class."""
        return issubclass(component, self.interface)

    def run(self, subject: Subject, seed: int = 0) -> None:
        """Runs every case.

        Raises:
            ConformanceError: The component does not behave; tells each input on which.
            NotApplicableError: The check has no meaning for the component.
        """
        failures, reasons = [], []
        for case in self.cases:
            trial = Trial(subject, case, seed)
            try:
                with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # a warning is no misbehaviour
                    trial.seed_everything()
                    self.function(trial)
            except NotApplicableError as reason:
                reasons.append(reason)
            except ConformanceError as error:
                failures.append((trial, str(error), error.__cause__))
            except Exception as error:
                failures.append((trial, f"raised {type(error).__name__}: {error}", error))
        if failures:
            if self.compares and not _is_deterministic(subject, seed):
                raise NotApplicableError("two runs differ anyway, see component_is_deterministic")
            raise ConformanceError(self._report(subject, seed, failures)) from failures[0][2]
        if len(reasons) == len(self.cases):
            raise reasons[0]

    def _report(
        self, subject: Subject, seed: int, failures: Sequence[tuple[Trial, str, BaseException | None]]
    ) -> str:
        lines = [f"{subject.id} does not conform: {self.behaviour} ({self.name}, version {self.version})"]
        for trial, message, _ in failures:
            lines.append(f"  {trial.case + ': ' if trial.case else ''}{message}")
            if trial.made:
                lines.append(f"    with {', '.join(trial.made)}")
        lines.append(f'  again: detcore.testing.run_check({subject.origin}, "{self.name}", seed={seed})')
        return "\n".join(lines)


def check(
    interface: type[Component],
    *,
    cases: Iterable[str] = ("",),
    version: int = 1,
    compares: bool = False,
    slow: bool = False,
) -> Callable[[Callable[[Trial], None]], Check]:
    """Makes a :class:`Check` of a function, whose name and first line of documentation become the check's.

    Args:
        interface: Whose components it holds for.
        cases: Names of the inputs; the function finds the present one in ``trial.case``.
        version: Raised when the check begins to refuse what it accepted before.
        compares: Whether it compares two runs of the component.
        slow: Whether it takes more than a few seconds.
    """

    def decorate(function: Callable[[Trial], None]) -> Check:
        behaviour = (inspect.getdoc(function) or function.__name__).splitlines()[0].rstrip(".")
        return Check(function.__name__, behaviour, interface, function, version, tuple(cases), compares, slow)

    return decorate


#: By interface, how to make a component do its work once, on ordinary input; the result is compared as a whole.
PROBES: dict[type[Component], Callable[[Any, Trial], Any]] = {}


def probe(interface: type[Component]) -> Callable[[Callable[[Any, Trial], Any]], Callable[[Any, Trial], Any]]:
    """Registers how a component of an interface is made to do its work once."""

    def decorate(function: Callable[[Any, Trial], Any]) -> Callable[[Any, Trial], Any]:
        PROBES[interface] = function
        return function

    return decorate


def run_probe(component: Component, trial: Trial) -> Any:
    """What a component gives on ordinary input, from the seed's random state.

    Raises:
        NotApplicableError: Nothing is known of its interface.
    """
    for base in type(component).__mro__:
        if base in PROBES:
            trial.seed_everything()
            return PROBES[base](component, trial)
    raise NotApplicableError(f"nothing is known of what a {type(component).kind} does")


def _is_deterministic(subject: Subject, seed: int) -> bool:
    try:
        runs = [run_probe(subject.copy(), Trial(subject, "", seed)) for _ in range(2)]
    except Exception:
        return True  # then the failure is not about chance
    return difference(*runs, rtol=RTOL, atol=ATOL) is None
