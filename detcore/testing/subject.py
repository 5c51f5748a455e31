"""What is checked: a component, or a spec, and what an owner would supply to it."""

from __future__ import annotations

import atexit
import copy
import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from detcore.component import Component, Spec, arguments_of, live_part
from detcore.errors import ConfigError
from detcore.signature import signature_of
from detcore.structures import FeatureSpec
from detcore.testing.errors import NotApplicableError

#: Strides of the pyramids that the kit wires to components, by kind; "" for every other kind.
WIRED_STRIDES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "necks": (4, 8, 16, 32),
        "roi_heads": (4, 8, 16, 32),
        "roi_extractors": (4, 8, 16, 32),
        "dense_heads": (8, 16, 32, 64, 128),
        "": (8, 16, 32),
    }
)
#: Channels of those pyramids: the same in each level, as necks leave them, but for necks.
WIRED_CHANNELS = 8
NECK_CHANNELS = (16, 24, 32, 40)
NUM_CLASSES = 3


@dataclass(frozen=True)
class Subject:
    """A component to be checked.

    Args:
        spec: A spec, or an instance, of which copies are checked.
        wired: What an owner would supply, in place of or beside what the kit supplies by itself: ``in_features``,
            ``strides``, ``num_classes`` (3), ``in_channels``, ``roi_feat_size`` and ``root`` (an empty folder).
        expected_failures: Names of checks that it is known not to pass, each with the reason. One that passes
            all the same is an error.
        inputs: What the kit cannot know about a component's inputs; the checks of an interface say which names
            they look for.
        name: Tells several subjects of one class apart.
    """

    spec: Spec[Any] | Component
    wired: Mapping[str, Any] = field(default_factory=dict)
    expected_failures: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    @property
    def type(self) -> type[Component]:
        """The component's class."""
        return self.spec.type if isinstance(self.spec, Spec) else type(self.spec)

    @property
    def id(self) -> str:
        """The class's name, and the subject's own."""
        return f"{self.type.__name__}-{self.name}" if self.name else self.type.__name__

    @property
    def origin(self) -> str:
        """How to name it in Python."""
        return repr(self.spec) if isinstance(self.spec, Spec) else f"<{self.type.__name__} object>"

    def build(self, **changes: Any) -> Any:
        """A new component, with random numbers from seed 0.

        Args:
            **changes: Parameters with other values.

        Raises:
            NotApplicableError: It has no such parameter, or refuses these values.
            ConfigError: It cannot be built even without changes.
        """
        spec, supplied = self.recipe(), self._supplied()
        if changes:
            spec, supplied = self._changed(spec, supplied, changes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                return spec.build(**supplied)
            except ConfigError as error:
                if changes:
                    raise NotApplicableError(f"refuses {changes}") from error
                raise

    def recipe(self) -> Spec[Any]:
        """A spec that makes such components; made from the arguments of an instance."""
        if isinstance(self.spec, Spec):
            return self.spec
        signature = signature_of(self.type)
        instance = copy.deepcopy(self.spec)
        values = {p.name: live_part(instance, p) for p in signature.parameters.values()}
        return Spec(self.type, values)

    def copy(self) -> Any:
        """A component that nothing was done to: a copy of one that is built only once."""
        original = _shared(self)
        try:
            return copy.deepcopy(original)
        except Exception:  # a check of its own tells so
            return self.build()

    def _changed(
        self, spec: Spec[Any], supplied: dict[str, Any], changes: Mapping[str, Any]
    ) -> tuple[Spec[Any], dict[str, Any]]:
        parameters = signature_of(self.type).parameters
        for name, value in changes.items():
            if name not in parameters:
                raise NotApplicableError(f"has no parameter {name}")
            if parameters[name].wired and name not in spec.params:
                supplied = {**supplied, name: value}
            else:
                try:
                    spec = spec.replace(**{name: value})
                except ConfigError as error:
                    raise NotApplicableError(f"refuses {name}={value!r}") from error
        return spec, supplied

    def _supplied(self) -> dict[str, Any]:
        """What an owner would supply, less what the spec states itself."""
        stated = self.spec.params if isinstance(self.spec, Spec) else signature_of(self.type).parameters
        everything = {**standard_wiring(self.type.kind), **self.wired}
        return {name: value for name, value in everything.items() if name not in stated}


def standard_wiring(kind: str) -> dict[str, Any]:
    """What the kit supplies to components of a kind, by the names of the interfaces."""
    strides = WIRED_STRIDES.get(kind, WIRED_STRIDES[""])
    widths = NECK_CHANNELS if kind == "necks" else (WIRED_CHANNELS,) * len(strides)
    return {
        "in_features": tuple(FeatureSpec(c, s) for c, s in zip(widths, strides, strict=True)),
        "strides": strides,
        "num_classes": NUM_CLASSES,
        "in_channels": WIRED_CHANNELS,
        "roi_feat_size": 7,
        "root": workspace(),
    }


@functools.cache
def workspace() -> Path:
    """An empty folder for this process, removed at its end."""
    folder = Path(tempfile.mkdtemp(prefix="detcore-conformance-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def given(component: Any, name: str, default: Any = None) -> Any:
    """The value that a constructor parameter of a component has."""
    return arguments_of(component).values.get(name, default)


def as_subject(value: Any, expected_failures: Mapping[str, str] | None = None) -> Subject:
    """A subject from a component class, an instance, a spec, or a subject.

    Raises:
        TypeError: It is none of these.
    """
    if isinstance(value, type) and issubclass(value, Component):
        value = Spec(value, {})
    subject: Any = Subject(value) if isinstance(value, (Spec, Component)) else value
    if not isinstance(subject, Subject):
        raise TypeError(
            f"expected a component, a spec, a component class or a Subject, got {value!r}; "
            "write parametrize_with_checks(MyAssigner.spec(...))"
        )
    if expected_failures:
        failures = {**subject.expected_failures, **expected_failures}
        return dataclasses.replace(subject, expected_failures=failures)
    return subject


#: The component that was built last: checks come subject by subject, and backbones are large.
_last: list[tuple[Subject, Any]] = []


def _shared(subject: Subject) -> Any:
    if not _last or _last[0][0] is not subject:
        _last[:] = [(subject, subject.build())]
    return _last[0][1]
