"""The options of an MMDetection component, read so that none is overlooked.

A translator takes each option that it understands. What nobody took is reported, with its path: nothing is
dropped silently.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from detcore.errors import Problem, join_path

#: Makes a detcore configuration of the options of one component.
Translator = Callable[["Options"], dict[str, Any]]

_MISSING: Any = object()
#: Options that every component of the reference takes, and that do not change what a loaded model computes.
_EVERYWHERE = {
    "init_cfg": "initial weights come from the checkpoint, or are this component's own",
    "_scope_": "only tells the reference where to look the type up",
}


@dataclass
class Report:
    """What comes to light while a configuration is translated.

    Args:
        problems: What has no translation.
        notes: What was left out on purpose, or decided, and why.
        channels: Channels that the reference states for the input of a part, by the part's path here.
        weights: Addresses of pretrained weights, by the path here of the part that they are for.
        modules: (reference's name, path here) of what holds weights.
        unused: Beginnings of the reference's weight names that have no place here, as is to be expected.
        wired: Paths here of values that the owner supplies as well, equal ones as a rule.
    """

    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    channels: dict[str, tuple[int, ...]] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    modules: list[tuple[str, str]] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    wired: list[str] = field(default_factory=list)


class Options:
    """The options of one component, or of one nested mapping of it.

    Args:
        data: The options; not changed.
        path: Where they stand in the reference's configuration.
        report: Receives problems and notes.
        translate: Translates nested components.
        place: The component's path in detcore's configuration; None for a component that stands alone.
        train: ``train_cfg`` of the owner, for components that get it from there.
        test: Likewise ``test_cfg``.
    """

    def __init__(
        self,
        data: Mapping[str, Any],
        path: str,
        report: Report,
        translate: Callable[[Options], dict[str, Any] | None],
        *,
        place: str | None = None,
        train: Options | None = None,
        test: Options | None = None,
    ) -> None:
        self.data, self.path, self.report, self.place = dict(data), path, report, place
        self._translate, self._train, self._test = translate, train, test
        self._used = {"type"}
        self._nested: list[Options] = []
        self._opened: dict[str, tuple[Any, Options]] = {}

    @property
    def type(self) -> str:
        """The component's name, without the scope of a package (``mmdet.ResNet``)."""
        name = self.data.get("type")
        return name.rpartition(".")[2] if isinstance(name, str) else ""

    @property
    def alone(self) -> bool:
        """Whether nothing stands around the component, so that nobody supplies what it gets wired."""
        return self.place is None

    @property
    def read(self) -> frozenset[str]:
        """The options that were taken so far."""
        return frozenset(self._used)

    def has(self, name: str) -> bool:
        """Whether an option is given, and not None."""
        return self.data.get(name) is not None

    def take(self, name: str, default: Any = None) -> Any:
        """The value of an option, which now counts as translated; ``default`` where absent or None."""
        self._used.add(name)
        value = self.data.get(name)
        return default if value is None else value

    def take_raw(self, name: str, default: Any = None) -> Any:
        """As :meth:`take`, but a None that is given stays None."""
        self._used.add(name)
        return self.data.get(name, default)

    def same(self, *names: str) -> dict[str, Any]:
        """The given ones of the options whose name and meaning are the same here."""
        return {name: self.take(name) for name in names if name in self.data and self.take(name) is not None}

    def only(self, name: str, *accepted: Any, remedy: str = "") -> None:
        """An option of which this project has some values only.

        Args:
            name: The option.
            *accepted: The values, beside None, that mean what detcore does anyway.
            remedy: What to do about others.
        """
        value = self.take(name)
        if value is not None and not any(_equal(value, one) for one in accepted):
            wanted = f"; only {', '.join(map(repr, accepted))} is" if accepted else ""
            self.problem(
                name, f"{_short(value)} of {self.type} has no counterpart in detcore{wanted}", remedy
            )

    def ignore(self, name: str, reason: str) -> None:
        """An option that makes no difference here."""
        if name in self.data:
            self._used.add(name)
            self.note(name, f"{_short(self.data[name])}: {reason}")

    def note(self, name: str, message: str) -> None:
        """Tells something that the user may want to know."""
        self.report.notes.append(Problem(join_path(self.path, name), message))

    def problem(self, name: str, message: str, remedy: str = "") -> None:
        """Tells that something has no translation."""
        self.report.problems.append(Problem(join_path(self.path, name), message, remedy))

    # ----------------------------------------------------------------------------------------------- nested

    def part(
        self,
        name: str,
        place: str | None = None,
        *,
        default: Mapping[str, Any] | None = None,
        implied: str = "",
        train: Options | None = None,
        test: Options | None = None,
    ) -> Any:
        """The translation of a nested component; None where there is none, or it has no translation.

        Args:
            name: The option.
            place: The part's name in the component here; the option's where omitted.
            default: What the reference takes where the option is absent.
            implied: The type where none is given.
            train: ``train_cfg`` for the part.
            test: ``test_cfg`` for the part.
        """
        value = self.take(name, default)
        if value is None:
            return None
        if not isinstance(value, Mapping) or not isinstance(value.get("type", implied or None), str):
            self.problem(name, f"expected a dict with 'type', got {_short(value)}")
            return None
        below = join_path(self.place or "", place or name)
        value = {"type": implied, **value}
        return self._translate(self._child(value, name, below, train, test))

    def parts(self, name: str) -> Any:
        """One nested component or a list of them, translated; a list stays a list."""
        value = self.take(name)
        if not isinstance(value, (list, tuple)):
            return self.part(name)
        return [self.replaced(**{f"{name}.{i}": one}).part(f"{name}.{i}") for i, one in enumerate(value)]

    def options(self, name: str) -> Options:
        """A nested mapping that is no component; empty where it is absent."""
        value = self.take(name, {})
        if not isinstance(value, Mapping):
            self.problem(name, f"expected a dict, got {_short(value)}")
            value = {}
        source, opened = self._opened.get(name, (None, None))
        if opened is None or source is not self.data.get(name):
            opened = self._child(value, name, self.place)
            self._opened[name] = (self.data.get(name), opened)
            self._nested.append(opened)
        return opened

    def nested(self, name: str, value: Mapping[str, Any]) -> Options:
        """A mapping from somewhere below, under the path ``name``; its reader finishes it."""
        return self._child(value, name, self.place)

    def _child(
        self,
        value: Mapping[str, Any],
        name: str,
        place: str | None,
        train: Options | None = None,
        test: Options | None = None,
    ) -> Options:
        path = join_path(self.path, name)
        return Options(value, path, self.report, self._translate, place=place, train=train, test=test)

    def replaced(self, **values: Any) -> Options:
        """The same options with some values changed; what is taken of either counts for both."""
        other = copy.copy(self)
        other.data = {**self.data, **values}
        return other

    def placed(self, place: str | None) -> Options:
        """The same options, for parts that belong to the component at ``place``."""
        other = copy.copy(self)
        other.place = place
        return other

    def train_cfg(self) -> Options:
        """``train_cfg``: the owner's, else the component's own."""
        return self._train if self._train is not None else self.options("train_cfg")

    def test_cfg(self) -> Options:
        """``test_cfg``: the owner's, else the component's own."""
        return self._test if self._test is not None else self.options("test_cfg")

    def with_settings(self) -> list[Options]:
        """These options, and the settings that the owner keeps for them."""
        return [self, *(settings for settings in (self._train, self._test) if settings is not None)]

    def take_all(self) -> None:
        """Counts every option as read, where more errors would say nothing new."""
        self._used.update(self.data)

    def finish(self) -> None:
        """Reports what nobody took, here and in nested mappings that are no components."""
        for nested in self._nested:
            nested.finish()
        for name, reason in _EVERYWHERE.items():
            if name not in self._used:
                self.ignore(name, reason)
        for name, value in self.data.items():
            if name not in self._used and value is None:
                self.note(name, "None, taken as not given")
            elif name not in self._used:
                owner = f" of {self.type}" if self.type else ""
                message = f"the option {name!r}{owner} ({_short(value)}) is not translated"
                self.problem(name, message, "remove it where it makes no difference to you")


def _equal(value: Any, other: Any) -> bool:
    if isinstance(value, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(value) == len(other) and all(_equal(a, b) for a, b in zip(value, other, strict=True))
    return type(value) is type(other) and value == other if isinstance(value, bool) else bool(value == other)


def _short(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def as_tuple(value: Any) -> Sequence[Any]:
    """A list or a tuple as it is, anything else as the only entry of a tuple."""
    return value if isinstance(value, (list, tuple)) else (value,)
