"""From a constructor's signature to a pydantic model, and from pydantic's errors to ours.

A component's ``__init__`` is the only statement of its parameters: names, types, ranges, defaults. This module
reads it once per class and validates whatever is given for it, whether from Python or from a file.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import types
import typing
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union

import pydantic
from pydantic import BeforeValidator, ConfigDict, Strict

from detcore.errors import ComponentDefinitionError, ConfigError, Problem, did_you_mean, join_path

_MISSING = inspect.Parameter.empty
_MODEL_CONFIG = ConfigDict(
    extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False, protected_namespaces=()
)


@dataclass(frozen=True)
class Wired:
    """Default of a parameter that the owner supplies; made by :func:`wired`."""

    default: Any = _MISSING
    may_override: bool = False


def wired(default: Any = _MISSING, *, may_override: bool = False) -> Any:
    """Marks a constructor parameter as one that only upstream knows (channels, strides, number of classes).

    A spec may leave it out; the owner supplies it when it builds the spec. Without an owner it must be given.

    Args:
        default: The value where neither the caller nor an owner gives one; required when omitted.
        may_override: Whether a spec may state another value than its owner's.
    """
    return Wired(default, may_override)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a component's constructor.

    Args:
        name: Its name.
        annotation: Its resolved annotation, as the author wrote it.
        default: Its default; ``inspect.Parameter.empty`` where it must be given.
        wired: How an owner supplies it, or None for a parameter that the user sets.
    """

    name: str
    annotation: Any
    default: Any
    wired: Wired | None

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is _MISSING

    @property
    def is_part(self) -> bool:
        """Whether its values are components, or collections of them."""
        return _mentions_component(self.annotation)


class Signature:
    """The parameters of one component class and the pydantic model derived from them.

    Args:
        component: The class.

    Raises:
        ComponentDefinitionError: A parameter is positional, variadic, not annotated, or has a mutable default.
    """

    def __init__(self, component: type) -> None:
        self.component = component
        self.title = component.__name__
        self.parameters: dict[str, Parameter] = {p.name: p for p in _read_parameters(component)}

    @functools.cached_property
    def model(self) -> type[pydantic.BaseModel]:
        """The pydantic model of the parameters: extras forbidden, ranges and choices as annotated."""
        fields: dict[str, Any] = {
            p.name: (harden(p.annotation), None) for p in self.parameters.values()
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a parameter may be called like a method of BaseModel
            return pydantic.create_model(self.title, __config__=_MODEL_CONFIG, **fields)

    def validate(self, given: Mapping[str, Any], *, complete: bool) -> dict[str, Any]:
        """The given values, coerced to the annotated types; nothing is added.

        Args:
            given: Values by parameter name.
            complete: Whether wired parameters must be there too.

        Raises:
            ConfigError: Unknown, missing or invalid parameters: all of them at once.
        """
        problems = [self._unknown(name) for name in given if name not in self.parameters]
        problems += self._missing(given, complete)
        known = {name: value for name, value in given.items() if name in self.parameters}
        validator = self.model.__pydantic_validator__
        try:
            checked = validator.validate_python(known, strict=False)
        except pydantic.ValidationError as error:
            problems += _problems(error, known, self)
        if problems:
            raise ConfigError(problems, self.title)
        return {name: checked.__dict__[name] for name in known}

    def defaults(self) -> dict[str, Any]:
        """The values of the parameters that have one without being given."""
        return {p.name: p.default for p in self.parameters.values() if not p.required}

    def _unknown(self, name: object) -> Problem:
        near = did_you_mean(name, self.parameters)
        takes = f"{self.title} takes {', '.join(self.parameters) or 'no parameters'}"
        return Problem(str(name), f"unknown parameter {name!r}", f"{near} {takes}".strip())

    def _missing(self, given: Mapping[str, Any], complete: bool) -> Iterator[Problem]:
        for parameter in self.parameters.values():
            if parameter.name in given or not parameter.required:
                continue
            if parameter.wired is None:
                yield Problem(parameter.name, f"required parameter of {self.title} is missing")
            elif complete:
                remedy = f"give it, or use {self.title}.spec(...) inside a component that supplies it"
                yield Problem(parameter.name, f"{self.title} needs it from its owner, and has none", remedy)


@functools.lru_cache(maxsize=None)
def signature_of(component: type) -> Signature:
    """The signature of a component class, read once."""
    return Signature(component)


def check_definition(component: type, init: Any) -> None:
    """Checks, as a class is defined, what can be checked without resolving annotations.

    Raises:
        ComponentDefinitionError: The constructor cannot be validated.
    """
    for parameter in list(inspect.signature(init).parameters.values())[1:]:
        where = f"{component.__qualname__}.__init__: parameter {parameter.name!r}"
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise ComponentDefinitionError(f"{where} must be keyword-only and named: put it after a bare `*`")
        if parameter.annotation is _MISSING:
            raise ComponentDefinitionError(f"{where} has no annotation; its type is what values are checked by")
        if parameter.name.startswith("_"):
            raise ComponentDefinitionError(f"{where} starts with an underscore; parameters are public")
        if isinstance(parameter.default, (list, dict, set, bytearray)):
            raise ComponentDefinitionError(f"{where} has a mutable default; use a tuple, or None")
        if getattr(type(parameter.default), "kind", None) is not None:
            raise ComponentDefinitionError(f"{where} defaults to an instance; use {type(parameter.default).__name__}.spec(...)")


def _read_parameters(component: type) -> Iterator[Parameter]:
    init = inspect.unwrap(component.__init__)  # type: ignore[misc]
    try:
        hints = typing.get_type_hints(init, include_extras=True)
    except Exception as cause:
        raise ComponentDefinitionError(
            f"{component.__qualname__}.__init__: the annotations cannot be resolved ({cause}); "
            "import their types at run time, not under TYPE_CHECKING"
        ) from cause
    for parameter in list(inspect.signature(init).parameters.values())[1:]:
        default, wiring = parameter.default, None
        if isinstance(default, Wired):
            wiring, default = default, default.default
        yield Parameter(parameter.name, hints[parameter.name], default, wiring)


# ---------------------------------------------------------------------------------------------- annotations


def _reject_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("input should be a number, not a boolean")
    return value


def _literal_number(choices: tuple[Any, ...], value: Any) -> Any:
    """Lets "50" stand for 50 among literal integers, as it does for an int, but not True for 1."""
    if isinstance(value, bool) and not any(choice is value for choice in choices):
        raise ValueError(f"input should be one of {', '.join(map(repr, choices))}")
    if isinstance(value, str) and value not in choices:
        return next((c for c in choices if not isinstance(c, str) and str(c) == value), value)
    return value


def harden(annotation: Any) -> Any:
    """The annotation as it is validated: strict booleans, numbers that are no booleans, one schema per part.

    ``X | Spec[X]`` collapses to ``X``: a component class validates instances, specs and mappings alike.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is bool:
        return Annotated[bool, Strict()]
    if annotation in (int, float):
        return Annotated[annotation, BeforeValidator(_reject_bool)]
    if origin is Literal:
        return Annotated[annotation, BeforeValidator(functools.partial(_literal_number, args))]
    if origin is Annotated:
        base, *metadata = args
        hard = harden(base)
        inner = typing.get_args(hard)[1:] if typing.get_origin(hard) is Annotated else ()
        base = typing.get_args(hard)[0] if inner else hard
        return functools.reduce(lambda a, m: Annotated[a, m], (*metadata, *inner), base)
    if origin in (Union, types.UnionType):
        members = [a for a in args if not (_is_spec(a) and typing.get_args(a)[0] in args)]
        return functools.reduce(lambda a, b: Union[a, b], [harden(a) for a in members])
    if origin in (tuple, list, dict, set, frozenset, collections.abc.Sequence, collections.abc.Mapping):
        return origin[tuple(a if a is ... else harden(a) for a in args)]
    return annotation


def _mentions_component(annotation: Any) -> bool:
    # by attribute: components are defined on top of this module
    if isinstance(annotation, type) and hasattr(annotation, "kind") and hasattr(annotation, "spec"):
        return True
    return _is_spec(annotation) or any(map(_mentions_component, typing.get_args(annotation)))


def _is_spec(annotation: Any) -> bool:
    return getattr(typing.get_origin(annotation), "is_spec_class", False)


# --------------------------------------------------------------------------------------------------- errors


def _problems(error: pydantic.ValidationError, given: Mapping[str, Any], signature: Signature) -> Iterator[Problem]:
    """Pydantic's line errors as ours: union branches merged, nested errors unfolded."""
    by_parameter: dict[str, list[tuple[str, Problem]]] = {}
    for line in error.errors(include_url=False):
        if line["type"] == "missing" and len(line["loc"]) == 1:
            continue  # reported by Signature, which knows about wiring
        name = str(line["loc"][0])
        path = _path_in(given, line["loc"])
        nested = line.get("ctx", {}).get("error")
        if isinstance(nested, ConfigError):
            found = list(nested.below(path).problems)
        else:
            found = [_problem(path, line)]
        by_parameter.setdefault(name, []).extend((path, problem) for problem in found)
    for lines in by_parameter.values():
        yield from _merge(lines)


def _problem(path: str, line: Any) -> Problem:
    message = line["msg"].removeprefix("Value error, ")
    if line["type"] == "missing":
        return Problem(path, "is missing")
    if line["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return Problem(path, "unknown key")
    return Problem(path, f"{message[0].lower()}{message[1:]}; got {_short(line['input'])}")


def _merge(lines: list[tuple[str, Problem]]) -> Iterator[Problem]:
    """One problem per path; of the branches of a union, the ones that got furthest into the value."""
    deepest: dict[str, list[Problem]] = {}
    paths = {path for path, _ in lines}
    for path, problem in lines:
        if not any(other.startswith(path + ".") for other in paths):
            deepest.setdefault(path, []).append(problem)
    for problems in deepest.values():
        # ConfigErrors of a nested component arrive with their own, different paths: nothing to merge
        if len({p.path for p in problems}) > 1 or len(problems) == 1:
            yield from dict.fromkeys(problems)
            continue
        got = problems[0].message.rpartition("; got ")[2]
        messages = dict.fromkeys(p.message.rpartition("; got ")[0] or p.message for p in problems)
        text = " or ".join(messages)
        yield Problem(problems[0].path, f"{text}; got {got}" if got != problems[0].message else text, problems[0].remedy)


def _path_in(value: Any, loc: tuple[int | str, ...]) -> str:
    """The location without the tags that pydantic puts in for the branches of a union."""
    path: list[str | int] = []
    for position, step in enumerate(loc):
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, (list, tuple)) and isinstance(step, int) and step < len(value):
            value = value[step]
        elif position < len(loc) - 1 or not isinstance(value, Mapping):
            continue
        path.append(step)
    return join_path(*path)


def _short(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
