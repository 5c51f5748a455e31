"""Between composed components and plain data: :func:`build` and :func:`dump`."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import PurePath
from typing import Any

from detcore import hooks, registry
from detcore.component import Component, Spec, arguments_of, live_part
from detcore.config import Config
from detcore.errors import BrokenPluginError, ConfigError, Problem, UnknownComponentError, join_path
from detcore.signature import signature_of


def build(
    config: Mapping[str, Any] | Config | Spec[Any],
    *,
    kind: str | None = None,
    objects: Mapping[str, Any] | None = None,
    title: str = "",
    **supplied: Any,
) -> Any:
    """Makes the component that a configuration describes. The whole tree is validated before anything is built.

    A :class:`~detcore.config.Config` (from a file) passes the hooks ``detcore_configure`` and ``detcore_built`` on
    its way, and errors tell the file and line of what is wrong.

    Args:
        config: A mapping with ``type`` (as from :func:`dump`), a configuration read from a file, or a spec. It is
            not changed.
        kind: Where to look up the root's ``type``; every kind where None.
        objects: Instances by path, put in place of what the configuration has there.
        title: What to call the configuration in errors; the root's type where empty.
        **supplied: Wired parameters of the root (``num_classes``, ``in_features``, ...).

    Raises:
        ConfigError: Everything that is wrong with the configuration, each with path, value and remedy.
    """
    if isinstance(config, Config):
        return _build_file(config, kind, objects, supplied)
    try:
        spec = config if isinstance(config, Spec) else as_spec(config, kind=kind, objects=objects)
        _check_supplied(spec, supplied)
        return spec.build(**supplied)
    except ConfigError as error:
        raise ConfigError(error.problems, title or error.title) from error.__cause__


def _build_file(
    config: Config, kind: str | None, objects: Mapping[str, Any] | None, supplied: Mapping[str, Any]
) -> Any:
    data = copy.deepcopy(config.data)
    hooks.manager().hook.detcore_configure(config=data)
    with locating_problems(config):
        built = build(data, kind=kind, objects=objects, **supplied)
    hooks.manager().hook.detcore_built(model=built)
    return built


@contextmanager
def locating_problems(config: Config) -> Iterator[None]:
    """Adds to every problem that is raised inside where its value was written."""
    try:
        yield
    except ConfigError as error:
        found = [dataclasses.replace(p, origin=config.origin(p.path)) for p in error.problems]
        raise ConfigError(found, config.source) from error.__cause__


def as_spec(
    config: Mapping[str, Any], *, kind: str | None = None, objects: Mapping[str, Any] | None = None
) -> Spec[Any]:
    """The validated spec that a mapping describes; arguments and errors as for :func:`build`."""
    if not isinstance(config, Mapping):
        raise ConfigError(f"a configuration is a mapping with the key 'type', got {config!r}")
    data = _with_objects(config, objects or {})
    name = data.pop("type", None)
    if not isinstance(name, str):
        raise ConfigError([Problem("type", f"the root needs a component's name, got {name!r}")])
    try:
        component = registry.resolve(kind, name)
    except (UnknownComponentError, BrokenPluginError) as error:
        raise ConfigError([Problem("type", str(error))]) from error
    return Spec(component, data)


def _check_supplied(spec: Spec[Any], supplied: Mapping[str, Any]) -> None:
    known = {p.name for p in signature_of(spec.type).parameters.values() if p.wired}
    problems = [
        Problem(
            name,
            f"{spec.type.__name__} has no wired parameter {name!r}",
            f"it has: {', '.join(known) or 'none'}",
        )
        for name in supplied
        if name not in known
    ]
    if problems:
        raise ConfigError(problems, spec.type.__name__)


def _with_objects(config: Mapping[str, Any], objects: Mapping[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = copy.deepcopy(dict(config)) if objects else dict(config)
    for path, value in objects.items():
        *owners, last = path.split(".")
        place: Any = data
        for step in owners:
            place = _step(place, step, path)
        if isinstance(place, list) and last.isdigit() and int(last) < len(place):
            place[int(last)] = value
        elif isinstance(place, MutableMapping):
            place[last] = value
        else:
            raise ConfigError(
                [Problem(path, "no such place in the configuration", "check the paths of `objects`")]
            )
    return data


def _step(place: Any, step: str, path: str) -> Any:
    if isinstance(place, Mapping) and step in place:
        return place[step]
    if isinstance(place, list) and step.isdigit() and int(step) < len(place):
        return place[int(step)]
    raise ConfigError(
        [Problem(path, f"no such place in the configuration (at {step!r})", "check the paths of `objects`")]
    )


def dump(component: Component | Spec[Any], objects: MutableMapping[str, Any] | None = None) -> dict[str, Any]:
    """The complete configuration of a component, as plain data that :func:`build` gives back.

    Parts are read as they are now, everything else as it was given; defaults are written out.

    Args:
        component: What to describe.
        objects: Receives, by path, the instances whose classes are not registered; None stands in their place.
            Without it such an instance is an error.

    Raises:
        ConfigError: A part's class is not registered by any installed distribution, or a value is not plain data.
    """
    dumper = _Dumper(objects)
    result: dict[str, Any] = dumper.component(component, "", root=True)
    if dumper.problems:
        raise ConfigError(dumper.problems, _name_of(component))
    return result


class _Dumper:
    def __init__(self, objects: MutableMapping[str, Any] | None) -> None:
        self.objects = objects
        self.problems: list[Problem] = []

    def component(self, item: Component | Spec[Any], path: str, *, root: bool = False) -> Any:
        cls = item.type if isinstance(item, Spec) else type(item)
        entry = registry.current().entry_of(cls)
        if entry is None:
            return self._unregistered(item, cls, path)
        values = item.complete() if isinstance(item, Spec) else dict(_arguments(item, root=root))
        return {"type": entry.qualified, **{n: self.value(v, join_path(path, n)) for n, v in values.items()}}

    def _unregistered(self, item: Any, cls: type, path: str) -> None:
        if self.objects is not None and not isinstance(item, Spec):
            self.objects[path] = item
            return
        remedy = "register it as an entry point, or pass objects={} to collect it"
        self.problems.append(
            Problem(path, f"{cls.__qualname__} is not registered by any distribution", remedy)
        )

    def value(self, value: Any, path: str) -> Any:
        if isinstance(value, (Component, Spec)):
            return self.component(value, path)
        if value is None or isinstance(value, (bool, int, float, str)):
            return value.value if isinstance(value, Enum) else value
        if isinstance(value, PurePath):
            return value.as_posix()
        if isinstance(value, Enum):
            return self.value(value.value, path)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {
                f.name: self.value(getattr(value, f.name), join_path(path, f.name))
                for f in dataclasses.fields(value)
            }
        if isinstance(value, Mapping) or hasattr(value, "items"):
            return {str(k): self.value(v, join_path(path, k)) for k, v in value.items()}
        if isinstance(value, (Sequence, set, frozenset)) or hasattr(value, "__iter__"):
            items = sorted(value) if isinstance(value, (set, frozenset)) else value
            return [self.value(v, join_path(path, i)) for i, v in enumerate(items)]
        self.problems.append(Problem(path, f"a {type(value).__name__} cannot be written as plain data"))
        return None


def _arguments(component: Component, *, root: bool) -> Iterator[tuple[str, Any]]:
    """What to write of a component: live parts, captured values, wired ones where no owner stands behind them."""
    state = arguments_of(component)
    for parameter in signature_of(type(component)).parameters.values():
        name = parameter.name
        if parameter.wired and not root:
            given = name in state.values and state.values[name] != parameter.default
            if name in state.wired or not given:
                continue
        yield name, live_part(component, parameter)


def _name_of(component: Component | Spec[Any]) -> str:
    return component.type.__name__ if isinstance(component, Spec) else type(component).__name__
