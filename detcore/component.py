"""Components: plain classes whose constructors are validated, and the specs that describe them.

A component is written like any class, with a keyword-only, annotated ``__init__``. :class:`Component`
validates every construction, remembers the validated arguments (so that the object can be dumped), and gives
the class ``spec``: a frozen recipe that an owner completes with what only the owner knows.
"""

from __future__ import annotations

import builtins
import difflib
import functools
import weakref
from abc import ABC
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Generic, ParamSpec, TypeAlias, TypeVar, get_args, overload

from pydantic_core import core_schema

from detcore import registry
from detcore.api import INTERFACE_VERSIONS
from detcore.errors import (
    BrokenPluginError,
    ConfigError,
    DetcoreError,
    Problem,
    UnknownComponentError,
    join_path,
)
from detcore.signature import Parameter, check_definition, short, signature_of, wired

__all__ = ["Component", "Part", "Spec", "arguments_of", "live_part", "make", "walk", "wired"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)  # a Spec[FPN] is a Spec[Neck]
P = ParamSpec("P")

_STATE = "_detcore_construction"
#: Key under which a part's interface stands in the JSON Schema of a parameter.
INTERFACE_MARK = "x-detcore-interface"


class Spec(Generic[T_co]):
    """A validated, frozen recipe for one component; made by ``Cls.spec(...)``.

    Args:
        type: The component class.
        params: Its arguments, without those that an owner supplies.

    Raises:
        ConfigError: An argument is unknown, missing or invalid; all of them are reported.
    """

    __slots__ = ("__weakref__", "_owner", "params", "type")
    is_spec_class: ClassVar[bool] = True

    type: builtins.type[T_co]
    params: Mapping[str, Any]
    _owner: weakref.ref[Any] | None

    def __init__(self, type: builtins.type[T_co], params: Mapping[str, Any]) -> None:
        if getattr(type, "__abstractmethods__", None):
            missing = ", ".join(sorted(type.__abstractmethods__))  # type: ignore[attr-defined]
            raise ConfigError(f"{type.__name__} is an interface, not a component (abstract: {missing})")
        values = signature_of(type).validate(params, complete=False)
        object.__setattr__(self, "type", type)
        object.__setattr__(self, "params", MappingProxyType(values))
        object.__setattr__(self, "_owner", None)

    def build(self, **supplied: Any) -> T_co:
        """Makes the component.

        Args:
            **supplied: What the owner knows; names that the component does not declare as wired are left out.

        Raises:
            ConfigError: A wired parameter is missing or contradicts the spec, or a cross-field check fails.
        """
        self._check_single_owner()
        wiring = _wiring_for(self.type, supplied)
        _check_agreement(self.type, self.params, wiring)
        built = self.type(**{**wiring, **self.params})
        vars(built)[_STATE].wired.update(wiring.keys() - self.params.keys())
        if _holds_instance(self.params):
            self._claim(built)
        return built

    def replace(self, **changes: Any) -> Spec[T_co]:
        """A spec with some arguments changed."""
        return Spec(self.type, {**self.params, **changes})

    def complete(self) -> dict[str, Any]:
        """The arguments with the defaults filled in; wired ones only where the spec states them."""
        signature = signature_of(self.type)
        free = {
            name: v for name, v in signature.defaults().items() if signature.parameters[name].wired is None
        }
        return {**free, **self.params}

    def _has_owner(self) -> bool:
        return self._owner is not None and self._owner() is not None

    def _check_single_owner(self) -> None:
        if self._has_owner():
            raise ConfigError(
                f"{self!r} holds an instance and was built before; an instance belongs to one owner only: "
                "give the inner part as a spec too, or make a second spec"
            )

    def _claim(self, owner: Any) -> None:
        object.__setattr__(self, "_owner", weakref.ref(owner))
        collector = _collector.get()
        if collector is not None:
            collector.claimed.append(self)

    def _release(self) -> None:
        object.__setattr__(self, "_owner", None)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{self.type.__name__}.spec(...) is frozen; use its replace({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{self.type.__name__}.spec(...) is frozen; use its replace(...)")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Spec):
            return NotImplemented
        return self.type is other.type and self.complete() == other.complete()

    def __hash__(self) -> int:
        return hash(self.type)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.params.items())
        return f"{self.type.__name__}.spec({arguments})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Spec, (self.type, dict(self.params))

    def __copy__(self) -> Spec[T_co]:
        return self

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        (interface,) = get_args(source) or (Component,)
        return core_schema.no_info_plain_validator_function(
            functools.partial(_as_spec, interface), metadata=_json_schema_of(interface)
        )


Part: TypeAlias = T | Spec[T]


class Component(ABC):
    """Base of everything that can be named in a configuration.

    An interface is a subclass that sets :attr:`kind`; a component is a subclass of an interface.
    """

    #: The entry-point group without its prefix; set by the interface.
    kind: ClassVar[str]
    #: Version of the interface. The core's are in :mod:`detcore.api`; a plugin's interface states its own here.
    api_version: ClassVar[int] = 1

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" in vars(cls) and "api_version" not in vars(cls):  # an interface
            cls.api_version = INTERFACE_VERSIONS.get(cls.kind, 1)
        init = cls.__dict__.get("__init__")
        if init is None and not any(
            getattr(vars(base).get("__init__"), "_validates", False) for base in cls.__mro__[1:]
        ):

            def init(self: Any) -> None:
                super(cls, self).__init__()

            init.__qualname__ = f"{cls.__qualname__}.__init__"
        if init is not None:
            check_definition(cls, init)
            cls.__init__ = _validating(cls, init)  # type: ignore[method-assign]

    @classmethod
    def spec(cls: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Spec[T]:
        """A validated, frozen recipe; what an owner knows (``in_features``, ``num_classes``) is left out.

        Raises:
            ConfigError: An argument is unknown, missing or invalid.
        """
        if args:
            raise ConfigError("takes keyword arguments only", cls.__name__)
        return Spec(cls, kwargs)  # type: ignore[arg-type]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            functools.partial(_as_part, cls), metadata=_json_schema_of(cls)
        )


@dataclass
class Construction:
    """What a component remembers of how it was made.

    Args:
        values: The validated arguments, defaults included. Built parts are not kept here but read live.
        wired: Names of the arguments that an owner supplied or confirmed.
    """

    values: dict[str, Any]
    wired: set[str] = field(default_factory=set)


def arguments_of(component: Component) -> Construction:
    """How ``component`` was made.

    Raises:
        ConfigError: The object was not made through a component's constructor.
    """
    try:
        return vars(component)[_STATE]  # type: ignore[no-any-return]
    except KeyError:
        raise ConfigError(f"{type(component).__name__} was not made through its constructor") from None


def live_part(component: Component, parameter: Parameter) -> Any:
    """The present value of a part parameter, the captured value of any other."""
    state = arguments_of(component)
    if parameter.is_part and hasattr(component, parameter.name):
        return getattr(component, parameter.name)
    return state.values[parameter.name]


def walk(component: Component, path: str = "") -> Iterator[tuple[str, Component]]:
    """A component and all its parts at any depth, each with its path; ``""`` for the component itself."""
    yield path, component
    for parameter in signature_of(type(component)).parameters.values():
        if parameter.is_part:
            value = live_part(component, parameter)
            for where, part in _components_in(value, join_path(path, parameter.name)):
                yield from walk(part, where)


def _components_in(value: Any, path: str) -> Iterator[tuple[str, Component]]:
    if isinstance(value, Component):
        yield path, value
    elif isinstance(value, Mapping) or hasattr(value, "items"):
        for key, item in value.items():
            yield from _components_in(item, join_path(path, key))
    elif hasattr(value, "__iter__") and not isinstance(value, str):
        for index, item in enumerate(value):
            yield from _components_in(item, join_path(path, index))


# ------------------------------------------------------------------------------------------- construction


@dataclass
class _Frame:
    """A component under construction: where it stands in the tree, and its arguments."""

    path: str
    values: Mapping[str, Any]
    made: list[str] = field(default_factory=list)

    def path_of(self, part: Any) -> str:
        """Where ``part`` stands, by identity; the next place of several (a shared default)."""
        places = list(_places_of(part, self.values))
        place = next((p for p in places if p not in self.made), places[-1] if places else "")
        self.made.append(place)
        return join_path(self.path, place)


@dataclass
class _Collector:
    """What happened below the outermost component under construction.

    Args:
        problems: Everything that went wrong.
        attempted: Paths of the parts that were tried.
        claimed: Specs with instances that were built; free again if the whole fails.
    """

    problems: list[Problem] = field(default_factory=list)
    attempted: set[str] = field(default_factory=set)
    claimed: list[Spec[Any]] = field(default_factory=list)

    def failed(self, path: str) -> bool:
        """Whether something is wrong with the part at ``path`` or below it."""
        return any(f"{problem.path}.".startswith(f"{path}.") for problem in self.problems)


class _PartMissingError(Exception):
    """A part is used that could not be built; the reason has been collected."""


class _MissingPart:
    """Stands for a part that failed, so that its siblings are still tried."""

    def __getattr__(self, name: str) -> Any:
        raise _PartMissingError(name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise _PartMissingError


_frame: ContextVar[_Frame | None] = ContextVar("detcore_frame", default=None)
_pending_path: ContextVar[str] = ContextVar("detcore_pending_path", default="")
_collector: ContextVar[_Collector | None] = ContextVar("detcore_collector", default=None)


def _validating(cls: type, init: Callable[..., None]) -> Callable[..., None]:
    """``init`` with its arguments validated; the outermost call on an object is the one remembered."""

    @functools.wraps(init)
    def validated(self: Any, *args: Any, **kwargs: Any) -> None:
        if args:
            raise ConfigError("takes keyword arguments only", type(self).__name__)
        outermost = _STATE not in vars(self)  # else a subclass's constructor is running this one
        signature = signature_of(type(self) if outermost else cls)
        values = {**signature.defaults(), **signature.validate(kwargs, complete=True)}
        if not outermost:
            init(self, **values)
            return
        vars(self)[_STATE] = Construction({n: v for n, v in values.items() if not _holds_instance(v)})
        with _Building(self, values):
            init(self, **values)

    validated._validates = True  # type: ignore[attr-defined]
    return validated


class _Building:
    """Context of one construction: its frame, and for the outermost one the collecting of all problems."""

    def __init__(self, component: Any, values: Mapping[str, Any]) -> None:
        self.component = component
        self.title = type(component).__name__
        self.frame = _Frame(_pending_path.get(), values)

    def __enter__(self) -> None:
        self.outermost = _collector.get() is None
        if self.outermost:
            self.frame.path = ""
            self.collector_token = _collector.set(_Collector())
        self.frame_token = _frame.set(self.frame)

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        _frame.reset(self.frame_token)
        collector = _collector.get()
        if not self.outermost or collector is None:
            self._finish(error)
            return
        try:
            if collector.problems and (error is None or isinstance(error, Exception)):
                _try_the_rest(self.frame.values, "", collector)
                ours = _as_config_error(error, self.title)
                own = ours.problems if ours else ()
                raise ConfigError([*collector.problems, *own], self.title) from None
            self._finish(error)
        except BaseException:
            self._release(collector)
            raise
        finally:
            _collector.reset(self.collector_token)
        if error is not None:
            self._release(collector)

    def _finish(self, error: BaseException | None) -> None:
        """Raises what is ours to raise: a cross-field check's ValueError, or a part that is not kept."""
        if error is None:
            self._check_parts_are_kept()
        elif (ours := _as_config_error(error, self.title)) not in (None, error):
            raise ours from error

    @staticmethod
    def _release(collector: _Collector) -> None:
        for spec in collector.claimed:
            spec._release()

    def _check_parts_are_kept(self) -> None:
        for name, value in self.frame.values.items():
            if _holds_instance(value) and not hasattr(self.component, name):
                raise ConfigError(
                    f"{self.title} does not keep its part {name!r}: "
                    f"its constructor must assign self.{name} = make({name}, ...)"
                )


def _as_config_error(error: BaseException | None, title: str) -> ConfigError | None:
    """A ConfigError as it is, a cross-field check's ValueError as a ConfigError, of anything else None."""
    if isinstance(error, ConfigError):
        return error
    if isinstance(error, ValueError) and not isinstance(error, DetcoreError):
        return ConfigError(str(error), title)
    return None


@overload
def make(part: None, **supplied: Any) -> None: ...
@overload
def make(part: T | Spec[T], **supplied: Any) -> T: ...
def make(part: Any, **supplied: Any) -> Any:
    """The component that a ``Part[X]`` argument stands for: a spec is built, an instance is checked.

    Args:
        part: The validated argument; None stays None.
        **supplied: What the owner knows. A spec gets what it declares as wired; an instance must agree.

    Raises:
        ConfigError: The part cannot be built, or was built for other neighbours. Inside a constructor the
            error is held back until the siblings have been tried, then raised for all.
    """
    if part is None:
        return None
    frame, collector = _frame.get(), _collector.get()
    path = frame.path_of(part) if frame else ""
    token = _pending_path.set(path)
    problems_before = len(collector.problems) if collector else 0
    try:
        if collector:
            collector.attempted.add(path)
        if isinstance(part, Spec):
            return part.build(**supplied)
        _check_neighbours(part, supplied)
        return part
    except ConfigError as error:
        if collector is None:
            raise
        collector.problems += error.below(path).problems
    except _PartMissingError:
        pass
    except Exception:
        # With a part missing below, an odd failure is its consequence; otherwise it is a bug to be seen.
        if collector is None or len(collector.problems) == problems_before:
            raise
    finally:
        _pending_path.reset(token)
    return _MissingPart()


def _check_neighbours(instance: Component, supplied: Mapping[str, Any]) -> None:
    state = arguments_of(instance)
    wiring = _wiring_for(type(instance), supplied)
    _check_agreement(type(instance), {name: state.values.get(name) for name in wiring}, wiring)
    state.wired.update(name for name, value in wiring.items() if state.values.get(name) == value)


def _wiring_for(component: type, supplied: Mapping[str, Any]) -> dict[str, Any]:
    """What a component declares as wired of what an owner supplies, validated."""
    signature = signature_of(component)
    wired_names = {p.name for p in signature.parameters.values() if p.wired}
    return signature.coerce({name: value for name, value in supplied.items() if name in wired_names})


def _check_agreement(component: type, stated: Mapping[str, Any], wiring: Mapping[str, Any]) -> None:
    """Refuses values that say something else than the owner, unless the parameter may override it."""
    signature = signature_of(component)
    problems = []
    for name, value in wiring.items():
        wiring_rule = signature.parameters[name].wired
        may_override = wiring_rule is not None and wiring_rule.may_override
        if name in stated and not may_override and stated[name] != value:
            problems.append(_contradiction(name, stated[name], value, signature.title))
    if problems:
        raise ConfigError(problems, signature.title)


def _contradiction(name: str, own: Any, given: Any, title: str) -> Problem:
    return Problem(
        name,
        f"{title} has {name}={_brief(own)}, but its owner supplies {_brief(given)}",
        f"use {title}.spec(...) without {name}, or build it for what precedes it",
    )


def _brief(value: Any) -> str:
    """Pyramids as channels/stride, everything else as it is."""
    if (
        isinstance(value, tuple)
        and value
        and all(hasattr(v, "channels") and hasattr(v, "stride") for v in value)
    ):
        return "(" + ", ".join(f"{v.channels} channels at stride {v.stride}" for v in value) + ")"
    return repr(value)


def _try_the_rest(values: Any, path: str, collector: _Collector) -> None:
    """Builds the specs that were never reached because something failed before, where no owner is needed."""
    for where, spec in _specs_in(values, path):
        if spec._has_owner():
            continue
        parameters = signature_of(spec.type).parameters.values()
        needs_owner = any(p.wired and p.required and p.name not in spec.params for p in parameters)
        if where not in collector.attempted and not needs_owner:
            _try(spec, where, collector)
        if where not in collector.attempted or collector.failed(where):
            _try_the_rest(spec.complete(), where, collector)


def _try(spec: Spec[Any], path: str, collector: _Collector) -> None:
    collector.attempted.add(path)
    token = _pending_path.set(path)
    try:
        spec.build()
    except ConfigError as error:
        collector.problems += error.below(path).problems
    except Exception:
        pass  # it shows itself again once the problems that were found are solved
    finally:
        _pending_path.reset(token)


def _specs_in(value: Any, path: str) -> Iterator[tuple[str, Spec[Any]]]:
    if isinstance(value, Spec):
        yield path, value
    else:
        for key, item in _items(value):
            yield from _specs_in(item, join_path(path, key))


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, (list, tuple)):
        yield from enumerate(value)


def _places_of(part: Any, value: Any, path: str = "") -> Iterator[str]:
    """Where in an owner's arguments ``part`` stands, by identity."""
    for key, item in _items(value):
        here = join_path(path, key)
        if item is part:
            yield here
        yield from _places_of(part, item, here)


def _holds_instance(value: Any) -> bool:
    if isinstance(value, Component):
        return True
    if isinstance(value, Spec):
        return _holds_instance(value.params)
    return any(_holds_instance(item) for _, item in _items(value))


# --------------------------------------------------------------------------------------------- validation


def _json_schema_of(interface: type) -> dict[str, Any]:
    return {"pydantic_js_functions": [lambda schema, handler: {INTERFACE_MARK: interface}]}


def _as_part(interface: type[Component], value: Any) -> Any:
    """An instance of ``interface``, or a spec for one."""
    if isinstance(value, interface):
        return value
    return _as_spec(interface, value)


def _as_spec(interface: type[Component], value: Any) -> Spec[Any]:
    """A spec for ``interface`` from a spec or a mapping with ``type``."""
    if isinstance(value, Mapping):
        return _spec_from_mapping(interface, value)
    if isinstance(value, Spec) and issubclass(value.type, interface):
        return value
    remedy = f"give an instance, {interface.__name__}.spec(...) of a concrete class, or {{type: NAME, ...}}"
    if isinstance(value, type) and issubclass(value, interface):
        use = f"use {value.__name__}.spec(...)"
        raise ConfigError([Problem("", f"got the class {value.__name__} itself", use)])
    what = value.type.__name__ if isinstance(value, Spec) else short(value)
    raise ConfigError([Problem("", f"expected {_article(interface)}, got {what}", remedy)])


def _spec_from_mapping(interface: type[Component], value: Mapping[str, Any]) -> Spec[Any]:
    kind = getattr(interface, "kind", None)
    params = {key: item for key, item in value.items() if key != "type"}
    if "type" not in value:
        names = ", ".join(registry.names(kind)) if kind else ""
        remedy = f"name one of: {names}" if names else ""
        raise ConfigError([Problem("type", f"the key 'type' is missing{_near_type(params)}", remedy)])
    name = value["type"]
    if not isinstance(name, str):
        raise ConfigError([Problem("type", f"expected a component's name, got {name!r}")])
    try:
        component = registry.resolve(kind, name)
    except (UnknownComponentError, BrokenPluginError) as error:
        raise ConfigError([Problem("type", str(error))]) from error
    if not issubclass(component, interface):
        raise ConfigError([Problem("type", f"expected {_article(interface)}, got {name!r}")])
    return Spec(component, params)


def _near_type(keys: Iterable[Any]) -> str:
    """`` (is 'typ' meant?)`` for the key that may stand for ``type``, or an empty string."""
    by_lower = {str(key).lower(): key for key in keys}
    near = difflib.get_close_matches("type", by_lower, n=1) or [
        k for k in ("name", "cls", "class") if k in by_lower
    ]
    return f" (is {by_lower[near[0]]!r} meant for it?)" if near else ""


def _article(interface: type) -> str:
    return ("an " if interface.__name__[0] in "AEIOU" else "a ") + interface.__name__
